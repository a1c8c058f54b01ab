package images

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"guesthouse.example/internal/apart"
	"guesthouse.example/internal/sys"
	"guesthouse.example/internal/target"
	"guesthouse.example/internal/tied"
)

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
