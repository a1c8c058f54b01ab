package integration

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"guesthouse.example/harness/harnesstest"
	"guesthouse.example/host/traffic"
	"guesthouse.example/images"
)

// kernelsEnv lists kernels by name. Make nightly sets it to kernels that take long to fetch.
const kernelsEnv = "GUESTHOUSE_TEST_KERNELS"

// kernelsToBoot returns the kernels of kernelsEnv. Without it, it returns a directory in the layout of an
// unpacked package, with the cached kernel of the target.
func kernelsToBoot(t *testing.T, target string) []string {
	if list := os.Getenv(kernelsEnv); list != "" {
		names, err := images.KernelNames(list)
		require.NoError(t, err)
		return names
	}
	cached, err := images.FetchKernel(t.Context(), target, images.Options{Log: os.Stderr})
	require.NoError(t, err)
	dir := t.TempDir()
	link := func(to, name string) {
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o777))
		require.NoError(t, os.Symlink(to, filepath.Join(dir, name)))
	}
	link(cached.Path, "boot/vmlinuz-"+cached.Release)
	link(cached.Modules, "lib/modules/"+cached.Release)
	return []string{dir}
}

// The echo service runs on kernels that are not the tested one, cold and restored.
func TestKernelsByName(t *testing.T) {
	t.Parallel()
	target := oneTarget(t)
	for _, kernel := range kernelsToBoot(t, target) {
		t.Run(kernel, func(t *testing.T) {
			spec := harnesstest.SpecWith(t, target, echoGuest, images.Options{Kernel: kernel})
			spec.Ports = []string{"udp/4242", "tcp/4242"}
			for range 2 { // the second one is restored
				m := harnesstest.Boot(t, spec)
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				for _, network := range []string{"udp", "tcp"} {
					require.NoError(t, traffic.Echo(ctx, dial(m), traffic.EchoConfig{Network: network}))
				}
				m.Close()
			}
		})
	}
}
