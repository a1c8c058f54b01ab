package harness

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"guesthouse.example/images"
)

func TestCopyBench(t *testing.T) {
	target := os.Getenv("T")
	b, err := images.Platform(t.Context(), target, images.Options{})
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Second)
	defer cancel()
	cache := &TemplateCache{Dir: t.TempDir()}
	boot := func() *Machine {
		m, err := Boot(ctx, Spec{Target: target, Kernel: b.Kernel, Initramfs: b.Initramfs, Ready: PlatformReady, From: cache, Dir: t.TempDir(), Memory: 1024})
		require.NoError(t, err)
		return m
	}
	boot().Close()
	dir := t.TempDir()
	for _, mib := range []int{1, 2, 16, 256} {
		data := make([]byte, mib<<20)
		for i := range data {
			data[i] = byte(i * 7 >> 3)
		}
		require.NoError(t, os.WriteFile(dir+"/"+strconv.Itoa(mib), data, 0o600))
	}
	mbs := func(mib int, d time.Duration) float64 { return float64(mib) * 1.048576 / d.Seconds() }
	for range 3 {
		for _, mib := range []int{1, 2, 16, 256} {
			name := dir + "/" + strconv.Itoa(mib)
			m := boot()
			f, err := os.Open(name)
			require.NoError(t, err)
			data, _ := os.ReadFile(name)
			sum := sha256.Sum256(data)
			start := time.Now()
			require.NoError(t, m.vm.Deliver(ctx, f, "/bin/first", 0o755, hex.EncodeToString(sum[:])))
			first := time.Since(start)
			start = time.Now()
			require.NoError(t, m.CopyIn(ctx, name, "/run/x"))
			in := time.Since(start)
			start = time.Now()
			require.NoError(t, m.CopyOut(ctx, "/run/x", dir+"/out"))
			out := time.Since(start)
			t.Logf("%s %d MiB %s: first delivery %v (%.0f MB/s), in %v (%.0f MB/s), out %v (%.0f MB/s)", target, mib, m.Result().Boot, first, mbs(mib, first), in, mbs(mib, in), out, mbs(mib, out))
			m.Close()
		}
	}
}
