package integration

import (
	"io"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"guesthouse.example/harness"
	"guesthouse.example/harness/harnesstest"
	"guesthouse.example/internal/target"
)

// BenchmarkFilter compares a machine whose frames the harness filters with a machine without a
// filter: round trips of 64 bytes, and an echo of 2 MiB. The two machines take turns and each metric
// is a median, so that load on the host affects both.
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
							exchange(b, conn, 64) // the connection is established
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

// exchange sends bytes and reads their echo.
func exchange(b *testing.B, conn net.Conn, size int) {
	write := func() { conn.Write(make([]byte, size)) } // CopyN reports a failure
	if size > 1<<10 {
		go write() // the guest begins to answer before it has read everything
	} else {
		write()
	}
	_, err := io.CopyN(io.Discard, conn, int64(size))
	require.NoError(b, err)
}
