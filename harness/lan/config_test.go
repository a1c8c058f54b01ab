package lan_test

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"guesthouse.example/harness/lan"
)

func TestASeedIsDrawn(t *testing.T) {
	require.Equal(t, uint64(9), newLan(t, lan.Config{Seed: 9}).Seed())
	a, b := newLan(t, lan.Config{}), newLan(t, lan.Config{})
	require.NotZero(t, a.Seed())
	require.NotEqual(t, a.Seed(), b.Seed())
}

func TestNonsenseIsRefused(t *testing.T) {
	for _, c := range []lan.Config{
		{IPv4: netip.MustParsePrefix("192.0.2.0/30")}, {IPv4: netip.MustParsePrefix("2001:db8::/64")}, {IPv6: netip.MustParsePrefix("2001:db8::/112")},
		{IPv6: netip.MustParsePrefix("192.0.2.0/24")}, {Faults: lan.Faults{Loss: 1.5}}, {Faults: lan.Faults{Delay: -1}},
	} {
		_, err := lan.New(c)
		require.Error(t, err, "%+v", c)
	}
	l := newLan(t, lan.Config{})
	join(t, l, "a")
	for _, name := range []string{"a", "host", "A", "-a", "a b", "a."} {
		_, err := l.Join(name)
		require.Error(t, err, name)
	}
	for _, try := range [][2]string{{"tcp", "nobody:1"}, {"tcp", "a"}, {"tcp", "a:x"}, {"tcp4", "[2001:db8::1]:1"}, {"ip", "a:1"}, {"tcp", ":1"}} {
		_, err := l.Dial(within(t), try[0], try[1])
		require.Error(t, err, "%q", try)
	}
	_, err := l.Listen("udp", ":1")
	require.Error(t, err)
	_, err = l.ListenPacket("tcp", ":1")
	require.Error(t, err)
	require.Error(t, l.Route(netip.MustParsePrefix("198.51.100.0/24"), netip.MustParseAddr("2001:db8::1")))
}

func TestAutomaticNamesAndAddresses(t *testing.T) {
	l := newLan(t, lan.Config{IPv4: netip.MustParsePrefix("10.7.0.0/29"), IPv6: netip.MustParsePrefix("fd00:7::/64")})
	want := [][3]string{{"guest", "10.7.0.1/29", "fd00:7::1/64"}, {"guest2", "10.7.0.3/29", "fd00:7::3/64"}, {"guest3", "10.7.0.4/29", "fd00:7::4/64"},
		{"guest4", "10.7.0.5/29", "fd00:7::5/64"}, {"guest5", "10.7.0.6/29", "fd00:7::6/64"}}
	macs := make(map[string]bool)
	for _, w := range want {
		line, err := l.Join("")
		require.NoError(t, err)
		require.Equal(t, w, [3]string{line.Name(), line.Addresses()[0].String(), line.Addresses()[1].String()})
		macs[line.MAC().String()] = true
	}
	require.Len(t, macs, len(want))
	_, err := l.Join("")
	require.ErrorContains(t, err, "no free address")
}
