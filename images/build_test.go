package images

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/u-root/u-root/pkg/kmodule"
	"golang.org/x/mod/modfile"
	"golang.org/x/sys/unix"

	"guesthouse.example/internal/apart"
	"guesthouse.example/internal/imagecache"
	"guesthouse.example/internal/initramfs"
	"guesthouse.example/internal/sys"
	"guesthouse.example/internal/target"
	"guesthouse.example/internal/tied"
)

const hello = "./testdata/hello"

// TestBuild fetches kernels from a real mirror and builds, for each target, into an empty cache.
func TestBuild(t *testing.T) {
	o := Options{Cache: t.TempDir()}
	for _, tgt := range target.All() {
		t.Run(tgt.Name, func(t *testing.T) {
			var log bytes.Buffer
			cold := o
			cold.Log = &log
			img, err := Build(t.Context(), tgt.Name, hello, cold)
			require.NoError(t, err)
			require.Contains(t, log.String(), tgt.Name+": fetching linux-image-")
			require.Contains(t, log.String(), tgt.Name+": building u-root's commands")
			require.Equal(t, tgt.Name, img.Target)
			require.Regexp(t, `^linux-image-\d`, img.KernelPackage)
			require.Contains(t, img.KernelPackage, img.Release)
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
			wg.Go(func() { images[i], errs[i] = Build(t.Context(), "arm64", hello, o) })
		}
		wg.Wait()
		require.NoError(t, errors.Join(errs...))
		same := func(a, b Image) bool { return a.Initramfs == b.Initramfs && a.Kernel == b.Kernel }
		require.Len(t, slices.CompactFunc(images, same), 1)
	})
	t.Run("failures", func(t *testing.T) { testBuildFails(t, o) })
}

// offline makes apt fail, and the go command when it needs a module from the network.
func offline(t *testing.T) {
	t.Helper()
	bin := t.TempDir()
	for _, name := range []string{"apt-get", "apt-cache", "dpkg-deb"} {
		require.NoError(t, os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\nexit 100\n"), 0o777))
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
	require.Positive(t, found, "Debian's kernels have some of them as modules")
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

func TestBuildFullDisk(t *testing.T) { apart.Run(t, testBuildFullDisk) }

func testBuildFullDisk(t *testing.T) {
	tgt, err := target.Lookup("arm64")
	require.NoError(t, err)
	c := testCache(t)
	o := Options{Cache: c.Path()}
	parts := programs{busybox: noise(1 << 20), guest: noise(1 << 20)}
	limitFiles(t, 1<<20, func() {
		_, err := buildGuest(t.Context(), c, tgt, hello, o)
		require.ErrorContains(t, err, "build guest ./testdata/hello: ")
		require.ErrorContains(t, err, "hint: free some space")
		_, _, err = writeInitramfs(t.Context(), tgt, Kernel{Target: tgt.Name}, parts, o)
		require.ErrorContains(t, err, "write initramfs ")
		require.ErrorContains(t, err, "hint: free some space")
	})
	requireEmpty(t, c.Path("initramfs"))
	requireEmpty(t, c.Path("tmp"))
	_, _, err = writeInitramfs(t.Context(), tgt, Kernel{Target: tgt.Name}, parts, o)
	require.NoError(t, err, "with room again")
}

// A logFunc is called with every line.
type logFunc func(line string)

func (f logFunc) Write(p []byte) (int, error) {
	f(string(p))
	return len(p), nil
}

func TestBuildCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	o := Options{Cache: t.TempDir(), Log: logFunc(func(line string) {
		// The next step runs the compiler.
		if strings.Contains(line, "building u-root's commands") {
			cancel()
		}
	})}
	_, _, err := BuildInitramfs(ctx, Kernel{Target: "arm64"}, hello, o)
	require.ErrorIs(t, err, context.Canceled)
	for _, dir := range []string{"tmp", "busybox", "initramfs"} {
		requireEmpty(t, filepath.Join(o.Cache, dir))
	}
}

// An orphaned compiler of a large package would take a processor for a minute.
func TestABuildThatIsKilledLeavesNothing(t *testing.T) {
	tgt, err := target.Lookup("arm64")
	require.NoError(t, err)
	const victimEnv = "GUESTHOUSE_TEST_VICTIM_BUILD"
	if cache := os.Getenv(victimEnv); cache != "" { // this is the process that the test kills
		c, err := openCache(Options{Cache: cache})
		require.NoError(t, err)
		_, err = buildGuest(t.Context(), c, tgt, ".", Options{Dir: largeProgram(t)})
		require.NoError(t, err)
		return
	}
	for _, signal := range []unix.Signal{unix.SIGKILL, unix.SIGTERM, unix.SIGINT} {
		t.Run(signal.String(), func(t *testing.T) { testKilledBuild(t, victimEnv, signal) })
	}
}

// testKilledBuild runs TestABuildThatIsKilledLeavesNothing in another process, where a variable of
// the environment names the cache, and kills that process.
func testKilledBuild(t *testing.T, victimEnv string, signal unix.Signal) {
	c := testCache(t)
	mark := victimEnv + "=" + c.Path()
	victim := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestABuildThatIsKilledLeavesNothing$")
	victim.Env = append(os.Environ(), mark, "TMPDIR="+t.TempDir())
	var said bytes.Buffer
	victim.Stdout = &said
	ended, err := tied.Start(victim)
	require.NoError(t, err)

	until := func(what string, within time.Duration, holds func([]sys.Process) bool) {
		t.Helper()
		late := time.After(within)
		for marked := sys.ProcessesWithEnv(mark); !holds(marked); marked = sys.ProcessesWithEnv(mark) {
			select {
			case <-late:
				t.Fatalf("%s: %v", what, marked)
			case err := <-ended:
				t.Fatalf("it has ended (%v):\n%s", err, said.String())
			case <-time.After(10 * time.Millisecond):
			}
		}
	}
	until("no compiler runs", 5*time.Minute, func(all []sys.Process) bool {
		return slices.ContainsFunc(all, func(p sys.Process) bool { return p.Name == "compile" })
	})
	require.NoError(t, victim.Process.Signal(signal))
	require.EqualError(t, <-ended, "signal: "+signal.String(), said.String())
	until("left behind", time.Second, func(all []sys.Process) bool { return len(all) == 0 })

	left, err := filepath.Glob(c.Path("tmp/*/go-build*"))
	require.NoError(t, err)
	require.NotEmpty(t, left, "it was killed in the middle of its work")
	w, err := c.Build(t.Context(), "another thing")
	require.NoError(t, err)
	w.Close()
	requireEmpty(t, c.Path("tmp"))
}

// largeProgram makes a module that the compiler works on for about ten seconds.
func largeProgram(t *testing.T) (dir string) {
	var b strings.Builder
	b.WriteString("package main\n\nfunc main() {}\n")
	for i := range 100 {
		fmt.Fprintf(&b, "\nfunc f%d(a, b, c map[int]string) {\n", i)
		for j := range 300 {
			fmt.Fprintf(&b, "\tif a[%[1]d] != b[%[1]d] { c[%[1]d] = a[%[1]d] + b[%[1]d] }\n", j)
		}
		b.WriteString("}\n")
	}
	dir = t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "go.mod"), []byte("module large\n\ngo 1.26\n"), 0o666))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "main.go"), []byte(b.String()), 0o666))
	return dir
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
