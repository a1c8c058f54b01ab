package lan_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"guesthouse.example/harness/lan"
)

func TestALanInWords(t *testing.T) {
	c, err := lan.ParseConfig("lan,loss=5%,delay=20ms±5ms,seed=7")
	require.NoError(t, err)
	require.Equal(t, lan.Faults{Loss: 0.05, Delay: 20 * time.Millisecond, Jitter: 5 * time.Millisecond}, c.Faults)
	require.Equal(t, uint64(7), c.Seed)
	c, err = lan.ParseConfig("lan,burst=1%:10,duplicate=0.5%,reorder=100%:3,bitflip=7%,truncate=3%,delay=1s+-2ms,rate=1.5Mbit,queue=3000,mtu=1400,ipv4=10.7.0.9/24,ipv6=fd00:7::/64")
	require.NoError(t, err)
	require.Equal(t, lan.Faults{BurstLoss: 0.01, BurstLength: 10, Duplicate: 0.005, Reorder: 1, ReorderFrames: 3, BitFlip: 0.07, Truncate: 0.03,
		Delay: time.Second, Jitter: 2 * time.Millisecond, Rate: 1_500_000, Queue: 3000, MTU: 1400}, c.Faults)
	require.Equal(t, netip.MustParsePrefix("10.7.0.0/24"), c.IPv4)

	l := newLan(t, lan.Config{Faults: lan.Faults{Loss: 0.07, Rate: 8000}, Seed: 9})
	require.Equal(t, "lan,loss=7%,rate=8kbit,seed=9", l.String())
}

func TestWrongWordsSayWhatWouldBeRight(t *testing.T) {
	for text, says := range map[string]string{
		"":                          `unknown kind "": write lan`,
		"wan":                       `unknown kind "wan": write lan`,
		"lan,":                      `unknown word "": the words are loss, burst,`,
		"lan,los=5%":                `unknown word "los": the words are loss, burst,`,
		"lan,loss=5%,loss=6%":       "loss is there twice",
		"lan,loss":                  "loss=: not a percentage from 0% to 100%: write loss=5%",
		"lan,loss=5":                "loss=5: not a percentage",
		"lan,loss=101%":             "not a percentage from 0% to 100%",
		"lan,loss=NaN%":             "not a percentage from 0% to 100%",
		"lan,loss=-1%":              "not a percentage from 0% to 100%",
		"lan,burst=5%:0":            "not a number from 1 to 1000: write burst=5% or 5%:10",
		"lan,reorder=5%:x":          "not a number from 1 to 1000",
		"lan,delay=20":              "delay=20: not a time: write delay=20ms or 20ms±5ms",
		"lan,delay=-1ms":            "Delay -1ms: write 0 to 1h0m0s",
		"lan,delay=1ms±2h":          "Jitter 2h0m0s: write 0 to 1h0m0s",
		"lan,rate=10":               "not a rate in bits per second: write rate=10Mbit, or kbit or Gbit",
		"lan,rate=0Mbit":            "not a rate",
		"lan,rate=1e300Gbit":        "not a rate",
		"lan,queue=0":               "not a number from 1",
		"lan,mtu=9000":              "MTU 9000: write 1 to 1500",
		"lan,ipv4=10.0.0.1":         "write ipv4=10.7.0.0/24",
		"lan,ipv4=fd00::/64":        "IPv4 network fd00::/64: it needs 8 to 29 bits",
		"lan,ipv6=fd00::/112":       "it needs at most 96 bits",
		"lan,seed=0":                "not a number from 1 to 18446744073709551615: write seed=7",
		"lan,seed=x":                "not a number",
		"lan,loss=5% ,delay=1ms":    "not a percentage",
		"lan,loss=5%,delay=20ms±":   "not a time",
		"lan,ipv6=fd00:7::/64,ipv6": "ipv6 is there twice",
	} {
		_, err := lan.ParseConfig(text)
		require.ErrorContains(t, err, says, text)
	}
}

// The text of a lan gives the same lan again.
func TestWordsKeepEveryValue(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		chance := rapid.Float64Range(0, 1)
		frames := rapid.IntRange(1, 1000)
		f := lan.Faults{
			Loss: chance.Draw(r, "loss"), BurstLoss: chance.Draw(r, "burst") + 1e-300, BurstLength: frames.Draw(r, "length"),
			Duplicate: chance.Draw(r, "duplicate"), BitFlip: chance.Draw(r, "bitflip"), Truncate: chance.Draw(r, "truncate"),
			Delay: time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(r, "delay")), Jitter: time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(r, "jitter")),
			Rate: rapid.Int64Range(0, 1e12).Draw(r, "rate"), Queue: rapid.IntRange(0, 1<<30).Draw(r, "queue"), MTU: rapid.IntRange(0, 1500).Draw(r, "mtu"),
		}
		c := lan.Config{Faults: f, Seed: rapid.Uint64Min(1).Draw(r, "seed"), IPv4: netip.MustParsePrefix("10.0.0.0/8"), IPv6: netip.MustParsePrefix("fd00::/64")}
		got, err := lan.ParseConfig(c.String())
		if err != nil || got != c {
			r.Fatalf("%v\n%+v\n%+v\n%v", c, c, got, err)
		}
	})
}
