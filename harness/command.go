package harness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"

	"guesthouse.example/harness/internal/agent"
)

// A Cmd is a command to run in the guest, in the manner of package os/exec. It does not use the console:
// the agent in the guest's init runs it. It works on every machine whose kernel has virtio_console, even
// before the guest's program is ready. Any number of commands may run at the same time.
//
// The agent finds the command in the PATH of the guest's init. The command starts in the directory
// /, with an empty standard input and without a terminal. When the context of Machine.Command ends, the
// agent kills the command and all processes that it has started. If the agent does not answer, it kills
// them when it goes on. Processes that the command has started may outlive it; the methods of Cmd do not
// wait for their output.
type Cmd struct {
	Args []string // the command's name and its arguments

	m   *Machine
	ctx context.Context
}

// Command returns a command for the guest. Call one of its methods to run it, once:
//
//	out, err := m.Command(ctx, "ip", "-4", "addr").Output()
//
// For shell syntax run "sh", "-c", "…".
func (m *Machine) Command(ctx context.Context, name string, args ...string) *Cmd {
	return &Cmd{Args: append([]string{name}, args...), m: m, ctx: ctx}
}

// Run runs the command and waits until it exits. An error other than a *CommandError says that the
// command could not be run or waited for: the guest has no agent, or the machine or ctx has ended.
func (c *Cmd) Run() error {
	_, err := c.run()
	return err
}

// Output is like Run and returns the command's standard output, even if it also returns an error. A
// *CommandError holds the standard error. Output keeps the first 8 MiB of each stream, and fails if the
// command writes more.
func (c *Cmd) Output() ([]byte, error) {
	out, err := c.run()
	return out.Stdout.Kept, err
}

// CombinedOutput is like Output and returns standard output and standard error together, in about
// the order in which they were written.
func (c *Cmd) CombinedOutput() ([]byte, error) {
	out, err := c.run()
	return out.Combined.Kept, err
}

// A CommandError says that a command in the guest exited with a status other than 0 or was ended by
// a signal. It wraps ErrGuest. A command that could not be started has the status 127, as in a
// shell, and Why says why.
type CommandError struct {
	Args []string
	Exit
	Stderr []byte // the command's standard error
}

func (e *CommandError) Error() string {
	text := fmt.Sprintf("%v: the command %q has ended: %v", ErrGuest, strings.Join(e.Args, " "), e.Exit)
	if last := bytes.TrimSpace(e.Stderr); len(last) > 0 {
		text += ": " + string(last[max(0, len(last)-stderrShown):])
	}
	return text
}

func (e *CommandError) Unwrap() error { return ErrGuest }

// stderrShown is how many bytes at the end of a command's standard error a CommandError shows.
const stderrShown = 1 << 10

func (c *Cmd) run() (agent.Output, error) {
	out, err := c.m.vm.Run(c.ctx, c.Args)
	if err == nil {
		if exit := exitOf(out.Exit); !exit.OK() {
			return out, &CommandError{c.Args, exit, out.Stderr.Kept}
		}
		err = errors.Join(out.Stdout.Truncated(), out.Stderr.Truncated())
	}
	if err != nil {
		return out, fmt.Errorf("command %q in %s: %w", strings.Join(c.Args, " "), c.m.plan.spec.Target, err)
	}
	return out, nil
}
