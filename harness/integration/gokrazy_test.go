package integration

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"guesthouse.example/harness"
	"guesthouse.example/harness/harnesstest"
	"guesthouse.example/host/traffic"
	"guesthouse.example/images"
)

const gokrazyKernel = "gokrazy"

// eachGokrazyTarget calls a test for each selected target for which gokrazy has a kernel.
func eachGokrazyTarget(t *testing.T, test func(t *testing.T, target string)) {
	harnesstest.EachTarget(t, func(t *testing.T, target string) {
		if target != "x86_64" && target != "arm64" {
			_, err := images.FetchKernel(t.Context(), target, images.Options{Kernel: gokrazyKernel})
			require.ErrorContains(t, err, "gokrazy has no kernel for the target "+target)
			return
		}
		test(t, target)
	})
}

// A kernel of another version and configuration than Debian's, without a single module, shows what one kernel
// hides. One machine does it all, because each boot of this kernel takes seconds.
func TestGokrazysKernel(t *testing.T) {
	t.Parallel()
	eachGokrazyTarget(t, func(t *testing.T, target string) {
		shared := t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(shared, "from"), []byte("the host"), 0o666))
		spec := harnesstest.SpecWith(t, target, echoGuest, images.Options{Kernel: gokrazyKernel})
		spec.Ports = []string{"udp/4242", "tcp/4242"}
		spec.Share = []harness.Share{
			{Host: shared, Guest: "/read", Mode: "ro"}, {Host: shared, Guest: "/changed", Mode: "overlay"}, {Host: shared, Guest: "/written", Mode: "rw"},
		}
		for _, from := range []string{"the first machine", "a restored machine"} {
			t.Run(from, func(t *testing.T) {
				m := harnesstest.Boot(t, spec)
				require.Regexp(t, `^[7-9]\.`, m.Output("uname", "-r"))
				require.Empty(t, m.Output("cat", "/proc/modules"), "all drivers are built in")
				checkEcho(t, m)
				checkCopies(t, m)
				checkShares(t, m, shared)
				m.Shutdown()
			})
		}
	})
}

func checkEcho(t *testing.T, m *harnesstest.Machine) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for _, network := range []string{"udp", "tcp"} {
		require.NoError(t, traffic.Echo(ctx, dial(m), traffic.EchoConfig{Network: network}))
	}
}

// checkCopies copies a tree into the guest and back.
func checkCopies(t *testing.T, m *harnesstest.Machine) {
	in, out := t.TempDir(), t.TempDir()
	want := traffic.Bytes(4, 1<<20)
	require.NoError(t, os.WriteFile(filepath.Join(in, "data"), want, 0o640))
	require.NoError(t, os.Symlink("data", filepath.Join(in, "link")))
	m.CopyIn(in, "/tmp/copied")
	m.CopyOut("/tmp/copied", filepath.Join(out, "copied"))
	got, err := os.ReadFile(filepath.Join(out, "copied", "data"))
	require.NoError(t, err)
	require.Equal(t, want, got)
	link, err := os.Readlink(filepath.Join(out, "copied", "link"))
	require.NoError(t, err)
	require.Equal(t, "data", link)
}

// checkShares reads and writes through the directory that the guest sees in three modes.
func checkShares(t *testing.T, m *harnesstest.Machine, shared string) {
	for _, dir := range []string{"/read", "/changed", "/written"} {
		require.Equal(t, "the host", m.Output("cat", dir+"/from"))
	}
	_, err := m.Machine.Command(t.Context(), "touch", "/read/new").Output()
	require.Error(t, err, "the share is read-only")
	m.Output("sh", "-c", "echo changed > /changed/from")
	require.Equal(t, "changed\n", m.Output("cat", "/changed/from"))
	m.Output("sh", "-c", "echo written > /written/new")
	written, err := os.ReadFile(filepath.Join(shared, "new"))
	require.NoError(t, err)
	require.Equal(t, "written\n", string(written))
	unchanged, err := os.ReadFile(filepath.Join(shared, "from"))
	require.NoError(t, err)
	require.Equal(t, "the host", string(unchanged))
	require.NoError(t, os.Remove(filepath.Join(shared, "new")))
}

// The file of some kernels does not tell their release, so the initramfs has the list of built-in drivers under the
// name of the directory, which may be any. The guest then finds no list under its own release.
func TestBuiltInDriversNeedNoModules(t *testing.T) {
	t.Parallel()
	const target = "arm64" // an Image tells its release only in its banner
	if oneTarget(t) != target {
		t.Skip("the kernel's file is arm64's")
	}
	kernel, err := images.FetchKernel(t.Context(), target, images.Options{Kernel: gokrazyKernel, Log: os.Stderr})
	require.NoError(t, err)
	image, err := os.ReadFile(kernel.Path)
	require.NoError(t, err)
	const banner, other = "Linux version ", "Linux Version "
	require.True(t, bytes.Contains(image, []byte(banner)))
	dir := t.TempDir()
	file, modules := filepath.Join(dir, "Image"), filepath.Join(dir, "5.0-other")
	require.NoError(t, os.WriteFile(file, bytes.ReplaceAll(image, []byte(banner), []byte(other)), 0o666))
	require.NoError(t, os.CopyFS(modules, os.DirFS(kernel.Modules)))

	spec := harnesstest.SpecWith(t, target, echoGuest, images.Options{Kernel: file, Modules: modules})
	spec.Ports = []string{"udp/4242", "tcp/4242"}
	spec.From = harness.Cold
	m := harnesstest.Boot(t, spec)
	require.Equal(t, kernel.Release+"\n", m.Output("uname", "-r"))
	require.NotContains(t, m.Output("ls", "/lib/modules"), kernel.Release)
	checkEcho(t, m)
	require.NotContains(t, m.Console().Text(), "kernel module", "init reports no missing module")
}
