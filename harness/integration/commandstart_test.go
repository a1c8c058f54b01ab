package integration

import (
	"encoding/json"
	"io/fs"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"guesthouse.example/harness"
	"guesthouse.example/harness/harnesstest"
)

// runs is the guest ./guests/runs, as the name of a command too.
const runs = "/bin/uinit"

func bootRuns(t *testing.T) *harnesstest.Machine {
	t.Helper()
	return harnesstest.Boot(t, harnesstest.Spec(t, oneTarget(t), "./guests/runs"))
}

// A started is how a command says that it was started.
type started struct {
	Args, Env []string
	Dir       string
}

func show(t *testing.T, cmd *harnesstest.Cmd) (s started) {
	t.Helper()
	require.NoError(t, json.Unmarshal([]byte(cmd.Output()), &s))
	return s
}

func TestACommandIsStartedAsItsFieldsSay(t *testing.T) {
	t.Parallel()
	m := bootRuns(t)
	inits := show(t, m.Command(runs, "show", "", "a b", "|"))
	require.Equal(t, []string{runs, "show", "", "a b", "|"}, inits.Args)
	require.Equal(t, "/", inits.Dir)
	require.True(t, len(inits.Env) > 0 && strings.HasPrefix(strings.Join(inits.Env, "\x00"), "PATH=") || strings.Contains(strings.Join(inits.Env, "\x00"), "\x00PATH="),
		"the environment of init: %q", inits.Env)

	cmd := m.Command(runs, "show")
	cmd.Env = []string{"A=1", "B=2", "A=3"}
	require.Equal(t, []string{"A=3", "B=2"}, show(t, cmd).Env)
	cmd = m.Command(runs, "show")
	cmd.Env = []string{}
	require.Empty(t, show(t, cmd).Env)

	cmd = m.Command(runs, "show")
	cmd.Dir = "/tmp"
	in := show(t, cmd)
	require.Equal(t, "/tmp", in.Dir)
	require.Contains(t, in.Env, "PWD=/tmp")
	cmd = m.Command("./uinit", "show")
	cmd.Dir = "bin"
	require.Equal(t, []string{runs, "show"}, show(t, cmd).Args, "a relative name begins in Dir, and Dir in /")

	long := strings.Repeat("x", 120<<10) // Linux allows 128 KiB for one argument
	many := make([]string, 12)
	for i := range many {
		many[i] = long
	}
	require.Len(t, show(t, m.Command(runs, append([]string{"show"}, many...)...)).Args, 2+len(many))
}

func TestACommandThatCannotBeStartedSaysWhy(t *testing.T) {
	t.Parallel()
	m := bootRuns(t)
	m.Output(runs, "file", "/tmp/file", "644", "text")
	m.Output(runs, "file", "/tmp/noprogram", "755", "text")
	m.Output(runs, "file", "/tmp/script", "755", "#!/no/such/shell\n")
	for _, c := range []struct {
		name, dir string
		env       []string
		status    int // 0 for an error of the caller
		says      string
		is        error
	}{
		{name: "nosuchprogram", status: 127, says: `exec: "nosuchprogram": executable file not found in $PATH`, is: fs.ErrNotExist},
		{name: "/no/such/program", status: 127, says: "/no/such/program: no such file or directory; the host has no such file either", is: fs.ErrNotExist},
		{name: "/tmp/file", status: 126, says: "/tmp/file", is: fs.ErrPermission},
		{name: "/tmp", status: 126, says: "is a directory", is: unix.EISDIR},
		{name: "/tmp/noprogram", status: 126, says: "exec format error", is: unix.ENOEXEC},
		{name: "/tmp/script", status: 126, says: "/tmp/script: its interpreter is missing: no such file or directory", is: harness.ErrGuest},
		{name: "uname", dir: "/no/such/dir", status: 126, says: "its directory /no/such/dir: no such file or directory", is: fs.ErrNotExist},
		{name: "uname", dir: "/tmp/file", status: 126, says: "its directory /tmp/file: not a directory", is: unix.ENOTDIR},
		{name: "uname", env: []string{"A=\x00"}, says: `a variable of its environment holds a NUL byte: "A=\x00"`},
		{name: "un\x00ame", says: `an argument holds a NUL byte: "un\x00ame"`},
		{name: "", says: "a command without a name"},
		{name: "uname", env: []string{strings.Repeat("x", 3<<20)}, says: "its arguments and environment have 3145"},
		{name: "uname", env: []string{strings.Repeat("x", 1<<20)}, status: 126, says: "argument list too long", is: unix.E2BIG},
	} {
		cmd := m.Machine.Command(t.Context(), c.name)
		cmd.Dir, cmd.Env = c.dir, c.env
		err := cmd.Run()
		require.ErrorContains(t, err, c.says)
		var failed *harness.CommandError
		if c.status == 0 {
			require.NotErrorIs(t, err, harness.ErrGuest, c.says)
			continue
		}
		require.ErrorAs(t, err, &failed, c.says)
		require.ErrorIs(t, err, harness.ErrGuest)
		require.Equal(t, c.status, failed.Code(), c.says)
		require.ErrorIs(t, err, c.is, c.says)
	}
	require.EqualError(t, m.Machine.Command(t.Context(), "nosuchprogram", "x").Run(),
		`the guest failed: the command "nosuchprogram x" was not started: exec: "nosuchprogram": executable file not found in $PATH`)
}

func TestACommandIsStartedAndAwaitedOnce(t *testing.T) {
	t.Parallel()
	m := bootRuns(t)
	cmd := m.Machine.Command(t.Context(), "uname")
	require.ErrorContains(t, cmd.Wait(), "it was not started")
	require.ErrorContains(t, cmd.Signal(os.Interrupt), "it was not started")
	require.NoError(t, cmd.Start())
	require.ErrorContains(t, cmd.Start(), "it was already started")
	require.NoError(t, cmd.Wait())
	require.ErrorContains(t, cmd.Wait(), "it was already waited for")
	require.ErrorContains(t, cmd.Run(), "it was already started")
	require.ErrorIs(t, cmd.Signal(os.Interrupt), os.ErrProcessDone)
}
