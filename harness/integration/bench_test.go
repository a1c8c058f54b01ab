package integration

import (
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
