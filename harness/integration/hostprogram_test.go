package integration

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"guesthouse.example/harness"
	"guesthouse.example/harness/harnesstest"
	"guesthouse.example/images"
	"guesthouse.example/internal/target"
)

// built returns a copy of a program of this directory, built for a target. The cache of images has it, as it has
// the guests.
func built(t *testing.T, target, pkg string) string {
	t.Helper()
	program, err := images.Program(t.Context(), target, pkg, images.Options{})
	require.NoError(t, err)
	code, err := os.ReadFile(program.Path)
	require.NoError(t, err)
	file := filepath.Join(t.TempDir(), filepath.Base(pkg))
	require.NoError(t, os.WriteFile(file, code, 0o755))
	return file
}

// deliveries returns how many requests to deliver a piece of a file are in the machine's record.
func deliveries(t *testing.T, m *harnesstest.Machine) int {
	t.Helper()
	log, err := os.ReadFile(filepath.Join(m.Dir(), "agent.log"))
	require.NoError(t, err)
	return strings.Count(string(log), "harness: copy in")
}

func TestAProgramOfTheHostRunsInTheGuest(t *testing.T) {
	t.Parallel()
	eachWordSize(t, func(t *testing.T, target string) {
		m := harnesstest.Boot(t, echoSpec(t, target))
		file := built(t, target, "./guests/runs")
		first := show(t, m.Command(file, "show", "x"))
		require.Regexp(t, "^/run/guesthouse/bin/[0-9a-f]{64}/runs$", first.Args[0])
		require.Equal(t, []string{"show", "x"}, first.Args[1:])
		once := deliveries(t, m)
		require.NotZero(t, once)
		require.Equal(t, first, show(t, m.Command(file, "show", "x")))
		require.Equal(t, once, deliveries(t, m), "a program is delivered once")

		cwd, err := os.Getwd()
		require.NoError(t, err)
		relative, err := filepath.Rel(cwd, file)
		require.NoError(t, err)
		again := m.Command(relative, "show", "x")
		again.Dir = "/tmp"
		require.Equal(t, first.Args, show(t, again).Args, "a relative name leads to the host's working directory too")
		require.Equal(t, once, deliveries(t, m))

		f, err := os.OpenFile(file, os.O_APPEND|os.O_WRONLY, 0)
		require.NoError(t, err)
		f.WriteString("another version")
		f.Close()
		other := show(t, m.Command(file, "show", "x"))
		require.NotEqual(t, first.Args[0], other.Args[0])
		show(t, m.Command(first.Args[0], "show")) // the first is still there
	})
}

func TestAProgramOfTheHostThatTheGuestCannotRunIsRefused(t *testing.T) {
	t.Parallel()
	m := harnesstest.Boot(t, echoSpec(t, oneTarget(t)))
	name := m.Spec().Target
	other := "arm64"
	if name == other {
		other = "x86_64"
	}
	foreign := built(t, other, "./guests/runs")
	dir := t.TempDir()
	write := func(name, text string, mode fs.FileMode) string {
		file := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(file, []byte(text), mode))
		return file
	}
	for file, c := range map[string]struct {
		status int
		says   string
	}{
		foreign:                          {126, fmt.Sprintf("program %s: it is built for %s; the target is %s", foreign, other, name)},
		write("data", "text", 0o755):     {126, "it is not an ELF executable"},
		write("off", "\x7fELF", 0o644):   {126, "it is not executable (its mode is 0644): chmod +x it"},
		dir:                              {126, "not a regular file"},
		filepath.Join(dir, "nothing"):    {127, "the host has no such file either"},
		write("s", "#!/no/such", 0o755):  {126, "its interpreter is missing"},
		write("broken", "\x7fEL", 0o755): {126, "it is not an ELF executable"},
	} {
		err := m.Machine.Command(t.Context(), file).Run()
		var failed *harness.CommandError
		require.ErrorAs(t, err, &failed, file)
		require.Equal(t, c.status, failed.Code(), file)
		require.ErrorContains(t, err, c.says)
		inGuest := c.status == 127 || strings.HasSuffix(file, "/s")
		require.Equal(t, inGuest, strings.HasPrefix(err.Error(), harness.ErrGuest.Error()), err)
	}
	require.Equal(t, "hello\n", m.Command(write("script", "#!/bin/sh\necho hello\n", 0o755)).Output())
}

func TestAProgramForAFullGuestIsRefused(t *testing.T) {
	t.Parallel()
	m := harnesstest.Boot(t, harnesstest.Spec(t, oneTarget(t), "./guests/runs"))
	m.Machine.Command(t.Context(), "sh", "-c", runs+" pour 1000000000 >/run/full").Run()
	err := m.Machine.Command(t.Context(), built(t, m.Spec().Target, "./guests/runs"), "show").Run()
	require.ErrorIs(t, err, harness.ErrGuest)
	require.ErrorContains(t, err, "no space left on device")
	m.Output("rm", "/run/full")
	show(t, m.Command(built(t, m.Spec().Target, "./guests/runs"), "show"))
}

// An executable that needs shared libraries runs in a guest of the host's architecture.
func TestADynamicProgramBringsItsLibraries(t *testing.T) {
	t.Parallel()
	all := target.All()
	i := slices.IndexFunc(all, func(t target.Target) bool { return t.GOARCH == runtime.GOARCH })
	require.NotEqual(t, -1, i)
	harnesstest.Require(t, all[i].Name)
	shared := t.TempDir()
	dirname, err := os.ReadFile("/usr/bin/dirname")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(shared+"/dirname", dirname, 0o755))
	spec := echoSpec(t, all[i].Name)
	spec.Share = []harness.Share{{Host: shared}}
	m := harnesstest.Boot(t, spec)
	require.Equal(t, "/a\n", m.Output(shared+"/dirname", "/a/x"), "a program of a share, as that of go test -race")
	require.Equal(t, "/bin/uinit\n", m.Output("/usr/bin/dirname", "/bin/uinit/x"), "a program of the host's distribution")
	if _, err := exec.LookPath("gcc"); err == nil { // the race detector needs a C compiler
		races := filepath.Join(t.TempDir(), "races")
		build := exec.CommandContext(t.Context(), "go", "build", "-race", "-o", races, "./guests/races")
		build.Env = append(os.Environ(), "CGO_ENABLED=1")
		out, err := build.CombinedOutput()
		require.NoError(t, err, "%s", out)
		out, err = m.Machine.Command(inTime(t, m), races).CombinedOutput()
		var failed *harness.CommandError
		require.ErrorAs(t, err, &failed)
		require.Equal(t, 66, failed.Code(), "%s", out)
		require.Contains(t, string(out), "WARNING: DATA RACE")
	}
}
