package main

import (
	"bytes"
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"

	"guesthouse.example/harness/harnesstest"
)

func TestALeashEndsWhatItsCommandHasLeft(t *testing.T) {
	t.Parallel()
	// Of the two that outlive it, one ignores Ctrl-C and one has left the process group.
	// Both hold the standard output.
	leash := exec.Command(os.Args[0], "leash", "sh", "-c", "sleep 1000 & setsid sleep 1000 & echo said; exit 3")
	leash.Args[0] = "guesthouse"
	var out bytes.Buffer
	leash.Stdout, leash.Stderr = &out, os.Stderr
	require.Error(t, leash.Run()) // waits until nobody can write to it
	require.Equal(t, 3, leash.ProcessState.ExitCode())
	require.Equal(t, "said\n", out.String())
}

func TestALeashGivesTheTerminalBackForACommandThatWasKilled(t *testing.T) {
	t.Parallel()
	s := startCommand(t, "leash", "sh", "-c", "stty raw -echo; kill -KILL $$")
	s.ends(128 + 9)
}

func TestCtrlCIsTheCommandsBusinessOnALeash(t *testing.T) {
	t.Parallel()
	s := startCommand(t, "leash", "sh", "-c", "trap 'echo caught; exit 5' INT; echo begun; while :; do sleep 1; done")
	s.sees("begun\r\n")
	s.types(ctrlC)
	s.sees("caught\r\n")
	s.ends(5)
}

// As make qemu-run has it.
func TestAConsoleOnALeash(t *testing.T) {
	t.Parallel()
	harnesstest.Require(t, anyTarget)
	s := startCommand(t, "leash", "guesthouse", "run", "-target", anyTarget)
	s.sees(`uart:~\$ `)
	s.types("sh echo begun; sleep 1000\r")
	s.sees(`\nbegun`)
	s.types(ctrlC) // to the guest
	s.sees(`uart:~\$ `)
	s.types(ctrlA + "x")
	s.ends(0)
}
