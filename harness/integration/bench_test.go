package integration

import (
	"io"
	"net"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"guesthouse.example/harness"
	"guesthouse.example/harness/harnesstest"
	"guesthouse.example/internal/target"
)

// BenchmarkColdBoot measures from the start of QEMU to the first echo that
// comes back.
func BenchmarkColdBoot(b *testing.B) {
	for _, tg := range target.All() {
		spec := harnesstest.Spec(b, tg.Name, echoGuest)
		spec.Ports = []string{"udp/4242", "tcp/4242"}
		for _, network := range []string{"udp", "tcp"} {
			b.Run(tg.Name+"/"+network, func(b *testing.B) {
				untilEcho(b, spec, network, "cold")
			})
		}
	}
}

// BenchmarkRestore measures the same for machines that are restored from a
// template.
func BenchmarkRestore(b *testing.B) {
	for _, tg := range target.All() {
		spec := harnesstest.Spec(b, tg.Name, echoGuest)
		spec.Ports = []string{"udp/4242", "tcp/4242"}
		spec.Accel = harness.TCG // of which templates are
		original, err := harness.Boot(b.Context(), spec)
		require.NoError(b, err)
		spec.Template, err = original.Save(b.Context(), filepath.Join(b.TempDir(), "template"))
		require.NoError(b, err)
		require.NoError(b, original.Close())
		for _, network := range []string{"udp", "tcp"} {
			b.Run(tg.Name+"/"+network, func(b *testing.B) {
				untilEcho(b, spec, network, "restored")
			})
		}
	}
}

// BenchmarkFilter measures what it costs that the harness filters what a guest sends, against a
// machine with all of the network: round trips of 64 bytes, and 2 MiB that the guest echoes. The two take
// turns, and each metric is a median, so that a load of the host hits both.
func BenchmarkFilter(b *testing.B) {
	choices := []harness.Outbound{harness.OutboundInternet, harness.OutboundNone}
	for _, tg := range target.All() {
		b.Run(tg.Name, func(b *testing.B) {
			machines := make(map[harness.Outbound]*harness.Machine)
			for _, choice := range choices {
				spec := harnesstest.Spec(b, tg.Name, echoGuest)
				spec.Ports, spec.Outbound = []string{"udp/4242", "tcp/4242"}, choice
				m, err := harness.Boot(b.Context(), spec)
				require.NoError(b, err)
				defer m.Close()
				machines[choice] = m
			}
			for name, c := range map[string]struct {
				network string
				size    int
				times   int
			}{"udp": {"udp", 64, 100}, "tcp": {"tcp", 64, 100}, "bulk": {"tcp", 2 << 20, 1}} {
				b.Run(name, func(b *testing.B) {
					took := make(map[harness.Outbound][]time.Duration)
					for b.Loop() {
						for _, choice := range choices {
							conn, err := machines[choice].Dial(b.Context(), c.network, echoPort)
							require.NoError(b, err)
							require.NoError(b, conn.SetDeadline(time.Now().Add(harnesstest.Within)))
							exchange(b, conn, 64) // it is made
							began := time.Now()
							for range c.times {
								exchange(b, conn, c.size)
							}
							took[choice] = append(took[choice], time.Since(began)/time.Duration(c.times))
							conn.Close()
						}
					}
					median := func(choice harness.Outbound) float64 {
						slices.Sort(took[choice])
						return float64(took[choice][len(took[choice])/2].Microseconds())
					}
					b.ReportMetric(median(harness.OutboundInternet), "internet-µs")
					b.ReportMetric(median(harness.OutboundNone), "none-µs")
					b.ReportMetric(median(harness.OutboundNone)/median(harness.OutboundInternet), "none/internet")
				})
			}
		})
	}
}

// exchange sends some bytes and reads as many.
func exchange(b *testing.B, conn net.Conn, size int) {
	write := func() { conn.Write(make([]byte, size)) } // a failure shows where they are read
	if size > 1<<10 {
		go write() // the guest sends back before it has all
	} else {
		write()
	}
	_, err := io.CopyN(io.Discard, conn, int64(size))
	require.NoError(b, err)
}

// untilEcho boots machines until the first echo comes back.
func untilEcho(b *testing.B, spec harness.Spec, network, how string) {
	var ready float64
	var all []float64
	for b.Loop() {
		began := time.Now()
		m, err := harness.Boot(b.Context(), spec)
		require.NoError(b, err)
		conn, err := m.Dial(b.Context(), network, echoPort)
		require.NoError(b, err)
		require.NoError(b, conn.SetDeadline(time.Now().Add(harnesstest.Within)))
		_, err = conn.Write([]byte("x"))
		require.NoError(b, err)
		_, err = conn.Read(make([]byte, 1))
		require.NoError(b, err)
		b.StopTimer()
		all = append(all, time.Since(began).Seconds()*1000)
		require.Equal(b, how, m.Result().Boot, m.Result().Why)
		ready += m.Result().ReadySeconds
		conn.Close()
		m.Close()
		b.StartTimer()
	}
	slices.Sort(all)
	b.ReportMetric(all[len(all)/2], "median-ms")
	b.ReportMetric(ready/float64(b.N), "s-to-ready/op")
}
