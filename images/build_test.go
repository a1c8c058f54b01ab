package images

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/u-root/u-root/pkg/kmodule"
	"golang.org/x/mod/modfile"
	"golang.org/x/sys/unix"

	"guesthouse.example/internal/imagecache"
	"guesthouse.example/internal/initramfs"
	"guesthouse.example/internal/target"
)

const hello = "./testdata/hello"

// everyTargetEnv makes TestBuild begin with an empty cache on every target. Make nightly sets it.
const everyTargetEnv = "GUESTHOUSE_TEST_EVERY_TARGET"

// TestBuild fetches a kernel from a real mirror and builds for one target into an empty cache. The images of the
// other targets come from the user's cache, from which the other tests boot them.
func TestBuild(t *testing.T) {
	const first = "arm64"
	empty := Options{Cache: t.TempDir()}
	for _, tgt := range target.All() {
		t.Run(tgt.Name, func(t *testing.T) {
			if c, err := openCache(empty); !hasApt() && err == nil {
				if kernel, err := defaultKernel(tgt, c); err == nil && kernel == debianKernel {
					_, err := Build(t.Context(), tgt.Name, hello, empty)
					require.ErrorContains(t, err, "this is not a Debian system")
					return
				}
			}
			if tgt.Name == first || os.Getenv(everyTargetEnv) != "" {
				buildFromNothing(t, tgt, empty)
			}
			img, err := Build(t.Context(), tgt.Name, hello, Options{})
			require.NoError(t, err)
			requireContents(t, tgt, img)
			if tgt.GOARCH == "amd64" { // the one that GOAMD64 in the environment could change
				t.Run("elsewhere", func(t *testing.T) { requireReproducible(t, tgt, img) })
			}
		})
	}
	t.Run("at once", func(t *testing.T) {
		images := make([]Image, 4)
		errs := make([]error, len(images))
		var wg sync.WaitGroup
		for i := range images {
			wg.Go(func() { images[i], errs[i] = Build(t.Context(), first, hello, empty) })
		}
		wg.Wait()
		require.NoError(t, errors.Join(errs...))
		same := func(a, b Image) bool { return a.Initramfs == b.Initramfs && a.Kernel == b.Kernel }
		require.Len(t, slices.CompactFunc(images, same), 1)
	})
	t.Run("failures", func(t *testing.T) { testBuildFails(t, empty) })
}

// buildFromNothing builds into an empty cache, again from that cache, and again after damage of the cache.
func buildFromNothing(t *testing.T, tgt target.Target, o Options) {
	var log bytes.Buffer
	cold := o
	cold.Log = &log
	img, err := Build(t.Context(), tgt.Name, hello, cold)
	require.NoError(t, err)
	if hasApt() {
		require.Regexp(t, `^linux-image-\d`, img.KernelPackage)
		require.Contains(t, img.KernelPackage, img.Release)
	} else {
		require.Contains(t, img.KernelPackage, "gokrazy")
	}
	require.Contains(t, log.String(), tgt.Name+": fetching "+img.KernelPackage)
	require.Contains(t, log.String(), tgt.Name+": building u-root's commands")
	require.Equal(t, tgt.Name, img.Target)
	for path, want := range map[string]string{img.Kernel: img.KernelSHA256, img.Initramfs: img.InitramfsSHA256} {
		sum, err := imagecache.HashFile(path)
		require.NoError(t, err)
		require.Equal(t, want, sum)
	}
	requireEmpty(t, filepath.Join(o.Cache, "tmp"))
	requireContents(t, tgt, img)

	t.Run("warm", func(t *testing.T) {
		offline(t)
		warm := o
		warm.Log = failOnWrite{t}
		again, err := Build(t.Context(), tgt.Name, hello, warm)
		require.NoError(t, err)
		img.Inputs, again.Inputs = nil, nil // of a build whose inputs are too new they are unknown
		require.Equal(t, img, again)
	})
	t.Run("damaged", func(t *testing.T) {
		require.NoError(t, os.Truncate(img.Initramfs, 1000))
		again, err := Build(t.Context(), tgt.Name, hello, o)
		require.NoError(t, err)
		sum, err := imagecache.HashFile(again.Initramfs)
		require.NoError(t, err)
		require.Equal(t, img.InitramfsSHA256, sum)
	})
}

// offline makes apt fail, if there is one, and the go command when it needs a module from the network.
func offline(t *testing.T) {
	t.Helper()
	bin := t.TempDir()
	for _, name := range []string{"apt-get", "apt-cache", "dpkg-deb"} {
		if hasApt() {
			require.NoError(t, os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\nexit 100\n"), 0o777))
		}
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	t.Setenv("GOPROXY", "off")
}

type failOnWrite struct{ t *testing.T }

func (w failOnWrite) Write(p []byte) (int, error) {
	w.t.Errorf("a warm build said %q", p)
	return len(p), nil
}

// requireReproducible builds again from other directories, in another environment and into
// another cache, and requires the same initramfs.
func requireReproducible(t *testing.T, tgt target.Target, img Image) {
	t.Helper()
	// The other directory has a module of the same name, with only the guest and the packages that
	// the guest needs.
	dir := t.TempDir()
	root, err := filepath.Abs("..")
	require.NoError(t, err)
	for _, folder := range []string{"images/testdata/hello", "guest", "internal/diskproto", "internal/filetree", "internal/initramfs", "internal/subnet", "internal/wire"} {
		require.NoError(t, os.CopyFS(filepath.Join(dir, folder), os.DirFS(filepath.Join(root, folder))))
	}
	for _, name := range []string{"go.mod", "go.sum", "images/busybox.mod", "images/busybox.sum"} {
		data, err := os.ReadFile(filepath.Join(root, name))
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), data, 0o666))
	}
	t.Setenv("TMPDIR", t.TempDir())
	t.Setenv("GOFLAGS", "-tags=elsewhere -ldflags=-X=main.x=y -gcflags=-N -mod=readonly")
	t.Setenv("GOAMD64", "v3")
	t.Setenv("CGO_ENABLED", "1")
	o := Options{Cache: t.TempDir(), Dir: filepath.Join(dir, "images")}
	k := Kernel{Target: tgt.Name, Modules: filepath.Join(filepath.Dir(img.Kernel), "modules"), Release: img.Release}
	file, sum, err := BuildInitramfs(t.Context(), k, hello, o)
	require.NoError(t, err)
	require.NotEqual(t, img.Initramfs, file)
	require.Equal(t, img.InitramfsSHA256, sum)
}

func requireContents(t *testing.T, tgt target.Target, img Image) {
	t.Helper()
	archived, err := os.ReadFile(img.Initramfs)
	require.NoError(t, err)
	root := t.TempDir()
	seen := map[string]record{}
	var names []string
	var data bytes.Buffer
	for _, r := range readArchive(t, archived) {
		names = append(names, r.name)
		if dir := filepath.Dir(r.name); dir != "." {
			require.Contains(t, seen, dir, "after its directory")
		}
		seen[r.name] = r
		if r.mode&unix.S_IFMT == unix.S_IFREG {
			data.Write(r.data)
			path := filepath.Join(root, r.name)
			require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o777))
			require.NoError(t, os.WriteFile(path, r.data, 0o666))
		}
	}
	require.IsIncreasing(t, names)
	for link, to := range map[string]string{"init": "bbin/init", "bin/sh": "../bbin/gosh", "bbin/gosh": "bb", "bbin/ls": "bb"} {
		require.Contains(t, seen, link)
		require.Equal(t, to, string(seen[link].data))
	}
	for _, program := range []string{"bbin/bb", "bin/uinit"} {
		require.EqualValues(t, unix.S_IFREG|0o755, seen[program].mode)
	}
	// The programs do not contain the directory of the build.
	here, err := filepath.Abs(".")
	require.NoError(t, err)
	for _, path := range []string{here, filepath.Dir(filepath.Dir(img.Initramfs)), "/pkg/mod/", "makebb"} {
		require.False(t, bytes.Contains(data.Bytes(), []byte(path)), path)
	}

	load, err := os.ReadFile(filepath.Join(root, initramfs.ModulesFile))
	require.NoError(t, err)
	var wanted []string
	for _, line := range strings.Split(strings.TrimSpace(string(load)), "\n") {
		if !strings.HasPrefix(line, "#") {
			wanted = append(wanted, line)
		}
	}
	require.Equal(t, slices.Concat(tgt.Modules, tgt.OptionalModules), wanted)
	// Parse the file as the guest does.
	found := 0
	for _, name := range wanted {
		var mu sync.Mutex
		var order []string
		require.NoError(t, kmodule.ProbeOptions(name, "", kmodule.ProbeOpts{
			RootDir: root, KVer: img.Release, IgnoreProcMods: true,
			DryRunCB: func(path string) {
				mu.Lock()
				defer mu.Unlock()
				order = append(order, moduleName(path))
				require.FileExists(t, path)
			},
		}))
		if len(order) > 0 { // otherwise the module is built in
			found++
			require.Equal(t, name, order[len(order)-1])
		}
	}
	if strings.HasPrefix(img.KernelPackage, imagePrefix) {
		require.Positive(t, found, "Debian's kernels have some of them as modules")
	}
}

// testBuildFails needs a warm cache.
func testBuildFails(t *testing.T, o Options) {
	_, err := Build(t.Context(), "arm64", "./testdata/broken", o)
	var e *Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, "build guest", e.Step)
	require.Equal(t, "./testdata/broken", e.Object)
	require.ErrorContains(t, err, "testdata/broken/main.go:4:15: undefined: undefinedInBroken")

	_, err = Build(t.Context(), "arm64", "github.com/u-root/u-root/pkg/kmodule", o)
	require.ErrorContains(t, err, "build guest github.com/u-root/u-root/pkg/kmodule: not a main package")
	_, err = Build(t.Context(), "arm64", "./testdata/nonesuch", o)
	require.ErrorContains(t, err, "testdata/nonesuch")
	_, err = Build(t.Context(), "arm64", "-o=/dev/null", o)
	require.Error(t, err, "it is no flag")

	outside := o
	outside.Dir = t.TempDir()
	_, err = Build(t.Context(), "arm64", ".", outside)
	require.ErrorContains(t, err, "not in a Go module\nhint: change to the directory of the guest's module")

	stranger := o
	stranger.Dir = t.TempDir()
	require.NoError(t, os.WriteFile(stranger.Dir+"/go.mod", []byte("module stranger\n"), 0o666))
	require.NoError(t, os.WriteFile(stranger.Dir+"/main.go", []byte("package main\n\nfunc main() {}\n"), 0o666))
	_, err = Build(t.Context(), "arm64", ".", stranger)
	require.ErrorContains(t, err, "build u-root commands arm64: ")
	require.ErrorContains(t, err, "cannot find module providing package guesthouse.example/guest/cmd/init")
	require.ErrorContains(t, err, "hint: the guest's module must require guesthouse.example")

	k, err := FetchKernel(t.Context(), "arm64", o)
	require.NoError(t, err)
	tgt, err := target.Lookup("arm64")
	require.NoError(t, err)
	tgt.Modules = []string{"nonesuch"}
	_, err = k.moduleRecords(tgt, 183, o)
	require.ErrorContains(t, err, "module nonesuch is neither")

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = Build(ctx, "arm64", hello, o)
	require.ErrorIs(t, err, context.Canceled)

	t.Run("no go", func(t *testing.T) {
		noApt(t)
		_, err = Build(t.Context(), "arm64", hello, o)
		require.ErrorContains(t, err, "hint: install Go")
	})
	requireEmpty(t, filepath.Join(o.Cache, "tmp"))
}

// The go command keeps in busybox.sum what the tools of busybox.mod need.
func TestBusyboxModNamesWhatIsCompiled(t *testing.T) {
	want := []string{makebb}
	for _, name := range commands {
		want = append(want, commandPath+name)
	}
	var got []string
	for _, tool := range readMod(t, "busybox.mod").Tool {
		got = append(got, tool.Path)
	}
	require.ElementsMatch(t, want, got)
}

// Init's tests and its other checks use go.mod, and the guest's init is compiled with busybox.mod.
func TestBusyboxModPinsTheVersionsOfGoMod(t *testing.T) {
	versions := map[string]string{}
	for _, r := range readMod(t, "busybox.mod").Require {
		versions[r.Mod.Path] = r.Mod.Version
	}
	for _, r := range readMod(t, "../go.mod").Require {
		require.Equal(t, r.Mod.Version, versions[r.Mod.Path], "%s: run make tidy", r.Mod.Path)
	}
}

func readMod(t *testing.T, path string) *modfile.File {
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	mod, err := modfile.Parse(path, data, nil)
	require.NoError(t, err)
	return mod
}
