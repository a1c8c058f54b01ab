package tied

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

const ownerVariable = "GUESTHOUSE_TEST_TIED"

// starts are the functions under test, each with a command that never ends by itself. The command of
// StartGroup has two generations of children, like a go command that runs a linker.
var starts = map[string]struct {
	start   func(*exec.Cmd) (<-chan error, error)
	command string
}{
	"Start":      {Start, "echo runs; exec sleep 1000"},
	"StartGroup": {StartGroup, "(sleep 1000 & sleep 1000 & echo runs; wait) & wait"},
}

// TestMain makes the test binary the owner of a command.
func TestMain(m *testing.M) {
	of, ok := starts[os.Getenv(ownerVariable)]
	if !ok {
		os.Exit(m.Run())
	}
	cmd := exec.Command("sh", "-c", of.command)
	cmd.Stdout = os.Stdout
	if _, err := of.start(cmd); err != nil {
		panic(err)
	}
	select {}
}

func TestACommandDiesWithItsOwner(t *testing.T) {
	for name := range starts {
		for _, sig := range []unix.Signal{unix.SIGKILL, unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGSEGV} {
			if signal.Ignored(sig) {
				continue // the owner ignores it too, like SIGHUP under nohup
			}
			t.Run(name+"/"+sig.String(), func(t *testing.T) {
				t.Parallel()
				owner := exec.CommandContext(t.Context(), os.Args[0])
				owner.Env = append(os.Environ(), ownerVariable+"="+name)
				out, w, err := os.Pipe()
				require.NoError(t, err)
				defer out.Close()
				owner.Stdout = w
				ended, err := Start(owner)
				w.Close()
				require.NoError(t, err)
				lines := bufio.NewReader(out)
				line, err := lines.ReadString('\n')
				require.NoError(t, err)
				require.Equal(t, "runs\n", line)
				require.NoError(t, owner.Process.Signal(sig))
				require.Error(t, <-ended)
				// Read until no process holds the other end.
				require.NoError(t, out.SetReadDeadline(time.Now().Add(time.Minute)))
				_, err = io.Copy(io.Discard, lines)
				require.NoError(t, err)
			})
		}
	}
}

func TestTheEndAndAFailureToStartAreReported(t *testing.T) {
	for name, of := range starts {
		t.Run(name, func(t *testing.T) {
			var said strings.Builder
			cmd := exec.Command("sh", "-c", `echo "$@"; exit 3`, "sh", "two  words", "$HOME", "")
			cmd.Stdout = &said
			ended, err := of.start(cmd)
			require.NoError(t, err)
			require.EqualError(t, <-ended, "exit status 3")
			require.Equal(t, "two  words $HOME \n", said.String())
			_, err = of.start(exec.Command("/nowhere/to/be/found"))
			require.ErrorIs(t, err, os.ErrNotExist)
			_, err = of.start(exec.Command("nowhere-to-be-found"))
			require.ErrorIs(t, err, exec.ErrNotFound)
		})
	}
}

func TestAGroupIsKilledAtOnce(t *testing.T) {
	cmd := exec.Command("sh", "-c", starts["StartGroup"].command)
	out, w, err := os.Pipe()
	require.NoError(t, err)
	defer out.Close()
	cmd.Stdout = w
	ended, err := StartGroup(cmd)
	w.Close()
	require.NoError(t, err)
	_, err = out.Read(make([]byte, 1)) // it runs
	require.NoError(t, err)
	require.NoError(t, unix.Kill(-cmd.Process.Pid, unix.SIGKILL))
	require.EqualError(t, <-ended, "signal: killed")
	require.NoError(t, out.SetReadDeadline(time.Now().Add(time.Minute)))
	_, err = io.Copy(io.Discard, out) // until no process holds the other end
	require.NoError(t, err)
}
