package images

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"guesthouse.example/internal/apart"
	"guesthouse.example/internal/imagecache"
)

// within bounds steps that normally take milliseconds.
func within(t *testing.T) <-chan time.Time { t.Helper(); return time.After(30 * time.Second) }

// noApt sets a PATH without any program.
func noApt(t *testing.T) { t.Helper(); t.Setenv("PATH", t.TempDir()) }

// requireEmpty requires that the cache has no unfinished files.
func requireEmpty(t *testing.T, dir string) {
	t.Helper()
	list, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, list)
}

func TestFetchKernelTakesTheTested(t *testing.T) {
	m, tested := fakeMirror(t)
	var log bytes.Buffer
	o := Options{Cache: t.TempDir(), Log: &log}
	k, err := fetchKernel(t.Context(), fakeTarget, tested, o)
	require.NoError(t, err)
	require.True(t, k.Tested)
	require.Equal(t, "linux-image-1-fake", k.Package)
	require.Equal(t, "1.2.3-1", k.Version)
	require.Equal(t, fakeRelease, k.Release)
	require.Equal(t, filepath.Join(o.Cache, "kernels", tested[0].SHA256, "vmlinuz"), k.Path)
	sum, err := imagecache.HashFile(k.Path)
	require.NoError(t, err)
	require.Equal(t, sum, k.SHA256)
	require.FileExists(t, filepath.Join(k.Modules, "kernel/drivers/net/virtio-net.ko"))
	require.FileExists(t, filepath.Join(k.Modules, "modules.builtin"))
	require.NoFileExists(t, filepath.Join(filepath.Dir(k.Path), "config"))
	require.Equal(t, "guesthouse: fake: fetching linux-image-1-fake 1.2.3-1 (0.0 MB)\n", log.String())
	requireEmpty(t, filepath.Join(o.Cache, "tmp"))

	t.Run("warm", func(t *testing.T) {
		noApt(t)
		log.Reset()
		again, err := fetchKernel(t.Context(), fakeTarget, tested, o)
		require.NoError(t, err)
		require.Equal(t, k, again)
		require.Empty(t, log.String())
	})
	require.Equal(t, 1, m.calls(t, "update"))
}

func TestFetchKernelTakesTheNewestKernelIfTheTestedOneIsGone(t *testing.T) {
	m, _ := fakeMirror(t)
	var log bytes.Buffer
	o := Options{Cache: t.TempDir(), Log: &log}
	old := imagecache.KernelSet{{Package: "linux-image-0-fake", Version: "0.9", SHA256: strings.Repeat("a", 64)}}
	k, err := fetchKernel(t.Context(), fakeTarget, old, o)
	require.NoError(t, err)
	require.False(t, k.Tested)
	require.Equal(t, "1.2.3-1", k.Version)
	require.Equal(t, 1, strings.Count(log.String(), "\n"), "one line")
	require.Contains(t, log.String(), "linux-image-1-fake 1.2.3-1 (0.0 MB) instead of the tested linux-image-0-fake 0.9")

	again, err := fetchKernel(t.Context(), fakeTarget, old, o)
	require.NoError(t, err)
	require.Equal(t, k, again)
	require.Equal(t, 1, m.calls(t, "update"), "the choice is kept")

	newLock := imagecache.KernelSet{{Package: "linux-image-2-fake", Version: "2", SHA256: strings.Repeat("b", 64)}}
	_, err = fetchKernel(t.Context(), fakeTarget, newLock, o)
	require.NoError(t, err)
	require.Equal(t, 2, m.calls(t, "update"), "a new lock file asks again")
}

func TestFetchKernelOfSeveralPackages(t *testing.T) {
	m, _ := fakeMirror(t)
	all := fakeKernelFiles()
	binary, modules := map[string][]byte{}, map[string][]byte{}
	for name, data := range all {
		if strings.HasPrefix(name, "boot/vmlinuz") {
			binary["usr/lib/modules/"+fakeRelease+"/vmlinuz"] = data
		} else {
			modules["usr/"+name] = data // merged into /usr, too
		}
	}
	m.Packages = []fakePackage{
		{Deb: imagecache.Deb{Package: "linux-image-fake", Version: "7", SHA256: strings.Repeat("0", 64)},
			Depends: "linux-base-fake (= 7), linux-image-7-fake (= 7)"},
		m.kernelPackage(t, "linux-image-7-fake", "7", "initramfs-tools | dracut, linux-binary-7-fake (= 7), linux-modules-7-fake (= 7)", map[string][]byte{"etc/nothing": nil}),
		m.kernelPackage(t, "linux-binary-7-fake", "7", "", binary),
		m.kernelPackage(t, "linux-modules-7-fake", "7", "linux-binary-7-fake (= 7)", modules),
	}
	m.save(t)
	o := Options{Cache: t.TempDir()}
	k, err := fetchKernel(t.Context(), fakeTarget, nil, o)
	require.NoError(t, err)
	require.Equal(t, "linux-image-7-fake", k.Package)
	require.Equal(t, fakeRelease, k.Release)
	require.FileExists(t, filepath.Join(k.Modules, "kernel/drivers/net/virtio-net.ko"))

	var tested imagecache.KernelSet
	for _, p := range m.Packages[1:] {
		tested = append(tested, p.Deb)
	}
	noApt(t)
	again, err := fetchKernel(t.Context(), fakeTarget, tested, o)
	require.NoError(t, err, "the same set, now as the tested one")
	require.True(t, again.Tested)
}

func TestFetchKernelFails(t *testing.T) {
	for _, test := range []struct {
		name  string
		spoil func(t *testing.T, m *mirror, tested imagecache.KernelSet) imagecache.KernelSet
		says  []string
	}{
		{"another hash in the index", func(t *testing.T, m *mirror, tested imagecache.KernelSet) imagecache.KernelSet {
			m.Packages[1].SHA256 = strings.Repeat("f", 64)
			return tested
		}, []string{"linux-image-1-fake 1.2.3-1 in apt's index: its SHA-256 is ffff", "altered", "guesthouse has not kept the file"}},
		{"another file", func(t *testing.T, m *mirror, tested imagecache.KernelSet) imagecache.KernelSet {
			data, err := os.ReadFile(m.Packages[1].File)
			require.NoError(t, err)
			data[len(data)/2] ^= 1
			require.NoError(t, os.WriteFile(m.Packages[1].File, data, 0o666))
			return tested
		}, []string{"its SHA-256 is", "altered"}},
		{"cut download", func(t *testing.T, m *mirror, tested imagecache.KernelSet) imagecache.KernelSet {
			m.Download = "cut"
			return tested
		}, []string{"linux-image-1-fake 1.2.3-1: the file has", "bytes instead of", "-kernel FILE"}},
		{"apt fails", func(t *testing.T, m *mirror, tested imagecache.KernelSet) imagecache.KernelSet {
			m.Download = "E: Failed to fetch: Connection reset by peer"
			return tested
		}, []string{"apt-get: exit status 100", "E: Failed to fetch: Connection reset by peer"}},
		{"full disk", func(t *testing.T, m *mirror, tested imagecache.KernelSet) imagecache.KernelSet {
			m.Download = "E: write (28: No space left on device)"
			return tested
		}, []string{"No space left", "hint: free some space"}},
		{"offline", func(t *testing.T, m *mirror, tested imagecache.KernelSet) imagecache.KernelSet {
			m.Packages, m.UpdateSays = nil, "Err: Temporary failure resolving the mirror"
			return tested
		}, []string{"no package linux-image-fake", "Temporary failure resolving the mirror", "check the network"}},
		{"no such package", func(t *testing.T, m *mirror, tested imagecache.KernelSet) imagecache.KernelSet {
			m.Packages = nil
			return tested
		}, []string{"apt's sources offer no package linux-image-fake", "check that apt's sources are Debian's", "-kernel FILE -modules DIR"}},
		{"a metapackage of nothing", func(t *testing.T, m *mirror, tested imagecache.KernelSet) imagecache.KernelSet {
			m.Packages[0].Depends = "firmware"
			return nil
		}, []string{"depends on no kernel package"}},
		{"no hash in the index", func(t *testing.T, m *mirror, tested imagecache.KernelSet) imagecache.KernelSet {
			m.Packages[1].SHA256 = ""
			return nil
		}, []string{"the index gives no SHA-256"}},
		{"no kernel in the package", func(t *testing.T, m *mirror, tested imagecache.KernelSet) imagecache.KernelSet {
			m.Packages[1] = m.kernelPackage(t, "linux-image-1-fake", "1.2.3-1", "", map[string][]byte{"etc/x": nil})
			return nil
		}, []string{"unpack linux-image-1-fake", "the packages have no kernel"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			m, tested := fakeMirror(t)
			tested = test.spoil(t, m, tested)
			m.save(t)
			o := Options{Cache: t.TempDir()}
			_, err := fetchKernel(t.Context(), fakeTarget, tested, o)
			require.Error(t, err)
			var e *Error
			require.ErrorAs(t, err, &e)
			require.Equal(t, "fetch kernel", e.Step)
			require.NotEmpty(t, e.Hint)
			for _, words := range test.says {
				require.ErrorContains(t, err, words)
			}
			requireEmpty(t, filepath.Join(o.Cache, "kernels"))
			requireEmpty(t, filepath.Join(o.Cache, "tmp"))
		})
	}
}

// The disk is full when apt is configured, during the download, and when the package is unpacked.
func TestFetchKernelFullDisk(t *testing.T) { apart.Run(t, testFetchKernelFullDisk) }

func testFetchKernelFullDisk(t *testing.T) {
	for _, test := range []struct {
		room uint64 // bytes a file
		at   string
	}{
		{10, "/apt.conf: file too large"},
		{1 << 12, "apt-get: exit status 1:\n\twrite linux-image-1-fake_1.2.3-1.deb: file too large"},
		{1 << 16, "unpack linux-image-1-fake 1.2.3-1: write "},
	} {
		t.Run(test.at, func(t *testing.T) {
			m, _ := fakeMirror(t)
			// The kernel cannot be compressed at all, and the module to almost nothing.
			files := fakeKernelFiles()
			files["boot/vmlinuz-"+fakeRelease] = noise(1 << 14)
			files["lib/modules/"+fakeRelease+"/kernel/drivers/net/large.ko"] = make([]byte, 1<<17)
			m.Packages[1] = m.kernelPackage(t, "linux-image-1-fake", "1.2.3-1", "", files)
			m.save(t)
			tested := imagecache.KernelSet{m.Packages[1].Deb}
			o := Options{Cache: t.TempDir()}
			limitFiles(t, test.room, func() {
				_, err := fetchKernel(t.Context(), fakeTarget, tested, o)
				require.ErrorContains(t, err, test.at)
				require.ErrorContains(t, err, "file too large")
				require.ErrorContains(t, err, "hint: free some space")
			})
			requireEmpty(t, filepath.Join(o.Cache, "kernels"))
			requireEmpty(t, filepath.Join(o.Cache, "tmp"))
			_, err := fetchKernel(t.Context(), fakeTarget, tested, o)
			require.NoError(t, err, "with room again")
		})
	}
}

// noise returns bytes that cannot be compressed.
func noise(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{}).Read(b)
	return b
}

// limitFiles calls f while no file of this process and of its children can grow beyond a size, as
// on a full disk. It needs a process of its own (package apart), because the limit also holds for
// the logs and profiles of package testing.
func limitFiles(t *testing.T, bytes uint64, f func()) {
	t.Helper()
	var before unix.Rlimit
	require.NoError(t, unix.Getrlimit(unix.RLIMIT_FSIZE, &before))
	require.NoError(t, unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: bytes, Max: before.Max}))
	defer func() { require.NoError(t, unix.Setrlimit(unix.RLIMIT_FSIZE, &before)) }()
	f()
}

func TestFetchKernelNeedsOnlyTheIndexOfTheKernel(t *testing.T) {
	m, tested := fakeMirror(t)
	m.UpdateSays = "E: one index of many is missing"
	m.save(t)
	_, err := fetchKernel(t.Context(), fakeTarget, tested, Options{Cache: t.TempDir()})
	require.NoError(t, err, "the index that is needed has come")
}

func TestFetchKernelReplacesADamagedOne(t *testing.T) {
	for _, file := range []string{"vmlinuz", imagecache.ManifestName} {
		t.Run(file, func(t *testing.T) {
			m, tested := fakeMirror(t)
			var log bytes.Buffer
			o := Options{Cache: t.TempDir(), Log: &log}
			k, err := fetchKernel(t.Context(), fakeTarget, tested, o)
			require.NoError(t, err)
			require.NoError(t, os.Truncate(filepath.Join(filepath.Dir(k.Path), file), 100))
			packages := m.Packages
			m.Packages, m.UpdateSays = nil, "offline"
			m.save(t)
			_, err = fetchKernel(t.Context(), fakeTarget, tested, o)
			require.ErrorContains(t, err, "the cached kernel is damaged ("+file)
			require.ErrorContains(t, err, "offline")

			m.Packages, m.UpdateSays = packages, ""
			m.save(t)
			log.Reset()
			again, err := fetchKernel(t.Context(), fakeTarget, tested, o)
			require.NoError(t, err)
			require.Equal(t, k.SHA256, again.SHA256)
			require.Contains(t, log.String(), "the cached kernel is damaged ("+file)
			require.Equal(t, 2, m.calls(t, "download"))
			requireEmpty(t, filepath.Join(o.Cache, "tmp"))
		})
	}
}

func TestFetchKernelDownloadsOnceForAllCallers(t *testing.T) {
	m, tested := fakeMirror(t)
	o := Options{Cache: t.TempDir()}
	var wg sync.WaitGroup
	errs := make([]error, 8)
	for i := range errs {
		wg.Go(func() { _, errs[i] = fetchKernel(t.Context(), fakeTarget, tested, o) })
	}
	wg.Wait()
	require.NoError(t, errors.Join(errs...))
	require.Equal(t, 1, m.calls(t, "download"))
}

func TestFetchKernelCancelled(t *testing.T) {
	m, tested := fakeMirror(t)
	m.Download = "hang"
	m.save(t)
	o := Options{Cache: t.TempDir()}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := fetchKernel(ctx, fakeTarget, tested, o)
		done <- err
	}()
	gone := m.hanging(t)
	cancel()
	gone()
	select {
	case err := <-done:
		require.ErrorIs(t, err, context.Canceled)
	case <-within(t):
		t.Fatal("FetchKernel does not return")
	}
	requireEmpty(t, filepath.Join(o.Cache, "kernels"))
	requireEmpty(t, filepath.Join(o.Cache, "tmp"))
}

func TestFetchKernelKilled(t *testing.T) {
	const victimEnv = "GUESTHOUSE_TEST_VICTIM_CACHE"
	if cache := os.Getenv(victimEnv); cache != "" { // this is the process that the test kills
		_, err := fetchKernel(t.Context(), fakeTarget, nil, Options{Cache: cache})
		require.NoError(t, err)
		return
	}
	m, tested := fakeMirror(t)
	m.Download = "hang"
	m.save(t)
	o := Options{Cache: t.TempDir()}
	self, err := os.Executable()
	require.NoError(t, err)
	victim := exec.Command(self, "-test.run=^TestFetchKernelKilled$")
	victim.Env = append(os.Environ(), victimEnv+"="+o.Cache)
	require.NoError(t, victim.Start())
	gone := m.hanging(t)
	require.NoError(t, victim.Process.Signal(syscall.SIGKILL))
	require.Error(t, victim.Wait())
	gone()
	half, err := filepath.Glob(filepath.Join(o.Cache, "tmp/kernel-fake/apt/debs/*/*.deb"))
	require.NoError(t, err)
	require.Len(t, half, 1, "it was killed in the middle of its work")
	requireEmpty(t, filepath.Join(o.Cache, "kernels"))

	m.Download = ""
	m.save(t)
	_, err = fetchKernel(t.Context(), fakeTarget, tested, o)
	require.NoError(t, err)
	requireEmpty(t, filepath.Join(o.Cache, "tmp"))
}

func TestFetchKernelWithoutApt(t *testing.T) {
	noApt(t)
	_, err := FetchKernel(t.Context(), "arm64", Options{Cache: t.TempDir(), Kernel: "debian"})
	require.ErrorContains(t, err, "this is not a Debian system")
	require.ErrorContains(t, err, "use -kernel gokrazy, which needs no apt")
	require.ErrorContains(t, err, "-kernel FILE -modules DIR")
}

func TestUnknownTarget(t *testing.T) {
	const says = `unknown target "vax": the targets are x86, x86_64, arm, arm64`
	o := Options{Cache: filepath.Join(t.TempDir(), "cache")}
	_, err := FetchKernel(t.Context(), "vax", o)
	require.EqualError(t, err, says)
	_, err = Build(t.Context(), "vax", ".", o)
	require.EqualError(t, err, says)
	_, _, err = BuildInitramfs(t.Context(), Kernel{Target: "vax"}, ".", o)
	require.EqualError(t, err, says)
	require.NoDirExists(t, o.Cache)
}

func TestOwnKernel(t *testing.T) {
	noApt(t)
	dir := t.TempDir()
	kernel, modules := filepath.Join(dir, "Image"), filepath.Join(dir, "modules")
	require.NoError(t, os.WriteFile(kernel, []byte("kernel"), 0o666))
	require.NoError(t, os.MkdirAll(filepath.Join(modules, "extra"), 0o777))
	o := Options{Kernel: kernel, Modules: modules, Cache: dir}
	_, err := FetchKernel(t.Context(), "x86_64", o)
	require.ErrorContains(t, err, "the directory has no kernel modules")

	require.NoError(t, os.WriteFile(filepath.Join(modules, "extra/virtio_net.ko"), fakeModule(""), 0o666))
	k, err := FetchKernel(t.Context(), "x86_64", o)
	require.NoError(t, err)
	require.Equal(t, Kernel{Target: "x86_64", Path: kernel, SHA256: hashBytes([]byte("kernel")), Modules: modules, Release: fakeRelease}, k)

	k, err = FetchKernel(t.Context(), "x86_64", Options{Kernel: kernel})
	require.NoError(t, err)
	require.Empty(t, k.Release)

	_, err = FetchKernel(t.Context(), "x86_64", Options{Modules: modules})
	require.ErrorContains(t, err, "modules without a kernel")
	_, err = FetchKernel(t.Context(), "x86_64", Options{Kernel: dir + "/none"})
	require.ErrorIs(t, err, os.ErrNotExist)
}
