package main

import (
	"bytes"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/Netflix/go-expect"
	"github.com/rogpeppe/go-internal/testscript"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// TestMain makes the test binary leash itself when it is called by that name.
func TestMain(m *testing.M) { testscript.Main(m, map[string]func(){"leash": main}) }

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata/script"})
}

func TestLeashEndsTheProcessesThatOutliveTheCommand(t *testing.T) {
	t.Parallel()
	// Of the two processes, one ignores Ctrl-C and one has left the process group. Both hold the
	// standard output open.
	leash := exec.Command(os.Args[0], "sh", "-c", "sleep 1000 & setsid sleep 1000 & echo said; exit 3")
	leash.Args[0] = "leash"
	var out bytes.Buffer
	leash.Stdout, leash.Stderr = &out, os.Stderr
	require.Error(t, leash.Run()) // waits until no process holds the output open
	require.Equal(t, 3, leash.ProcessState.ExitCode())
	require.Equal(t, "said\n", out.String())
}

// onTerminal starts leash with a shell command on a terminal of its own.
func onTerminal(t *testing.T, command string) (*expect.Console, *exec.Cmd) {
	t.Helper()
	console, err := expect.NewConsole(expect.WithDefaultTimeout(time.Minute))
	require.NoError(t, err)
	leash := &exec.Cmd{
		Path: os.Args[0], Args: []string{"leash", "sh", "-c", command},
		Stdin: console.Tty(), Stdout: console.Tty(), Stderr: console.Tty(),
		SysProcAttr: &syscall.SysProcAttr{Setsid: true, Setctty: true},
	}
	require.NoError(t, leash.Start())
	t.Cleanup(func() {
		leash.Process.Kill()
		console.Close()
	})
	return console, leash
}

func TestLeashRestoresTheTerminalOfACommandThatWasKilled(t *testing.T) {
	t.Parallel()
	console, leash := onTerminal(t, "read line; stty raw -echo; kill -KILL $$")
	before, err := unix.IoctlGetTermios(int(console.Tty().Fd()), unix.TCGETS)
	require.NoError(t, err)
	_, err = console.SendLine("go")
	require.NoError(t, err)
	require.Error(t, leash.Wait())
	require.Equal(t, 128+int(unix.SIGKILL), leash.ProcessState.ExitCode())
	after, err := unix.IoctlGetTermios(int(console.Tty().Fd()), unix.TCGETS)
	require.NoError(t, err)
	require.Equal(t, before, after)
}

func TestTheCommandHandlesCtrlC(t *testing.T) {
	t.Parallel()
	console, leash := onTerminal(t, "trap 'echo caught; exit 5' INT; echo begun; while :; do sleep 1; done")
	for _, step := range []struct{ sees, types string }{{"begun\r\n", "\x03"}, {"caught\r\n", ""}} {
		_, err := console.ExpectString(step.sees)
		require.NoError(t, err)
		_, err = console.Send(step.types)
		require.NoError(t, err)
	}
	require.Error(t, leash.Wait())
	require.Equal(t, 5, leash.ProcessState.ExitCode())
}
