package integration

import (
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
				var ready float64
				for b.Loop() {
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
					ready += m.Result().ReadySeconds
					conn.Close()
					m.Close()
					b.StartTimer()
				}
				b.ReportMetric(ready/float64(b.N), "s-to-ready/op")
			})
		}
	}
}
