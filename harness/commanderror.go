package harness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"

	"guesthouse.example/harness/internal/agent"
	"guesthouse.example/internal/printable"
)

// A CommandError says that a command in the guest exited with a status other than 0, was ended by a signal, or
// could not be started. A command that could not be started has the status that a shell gives it: 127 if
// there is no such command, and 126 if it cannot be run. Why then says why, and errors.Is finds the cause, for
// example fs.ErrNotExist. A CommandError wraps ErrGuest, unless a program of the host cannot be run in the guest.
type CommandError struct {
	Args []string
	Exit
	// Stderr is the beginning and the end of the command's standard error, if Cmd.Stderr was nil.
	Stderr []byte

	refused error // why the command was not started; nil if it was
}

func (e *CommandError) Error() string {
	if e.refused != nil {
		text := fmt.Sprintf("the command %q was not started: %s", shown(e.Args), printable.Text(e.Why))
		if errors.Is(e.refused, ErrGuest) {
			text = ErrGuest.Error() + ": " + text
		}
		return text
	}
	text := fmt.Sprintf("%v: the command %q has ended: %v", ErrGuest, shown(e.Args), e.Exit)
	if last := bytes.TrimSpace(e.Stderr); len(last) > 0 {
		text += ": " + printable.Text(string(last[max(0, len(last)-stderrShown):]))
	}
	return text
}

func (e *CommandError) Unwrap() error {
	if e.refused != nil {
		return e.refused
	}
	return ErrGuest
}

// argsShown and stderrShown are how many bytes of a command's arguments and of the end of its standard error an
// error shows.
const (
	argsShown   = 1 << 10
	stderrShown = 1 << 10
)

// The exit statuses of a command that was not started, as in a shell.
const (
	notRunnable = 126
	notFound    = 127
)

// guestRefusal is the cause of a command that the guest refused.
func guestRefusal(errno uint16) error {
	if errno == 0 {
		return ErrGuest
	}
	return fmt.Errorf("%w: %w", ErrGuest, syscall.Errno(errno))
}

// lineFailed explains the error of a call to the guest's agent. If the guest has crashed or the machine has ended,
// the error says how, shows the last lines of its console, and names its record.
func (m *Machine) lineFailed(ctx context.Context, err error) error {
	if m.vm.Crashed() != nil {
		return fmt.Errorf("%w\n%s", err, m.Report())
	}
	if !errors.Is(err, agent.ErrLineEnded) {
		return err
	}
	select {
	case <-m.ended:
	case <-ctx.Done():
		return err
	}
	if m.err != nil {
		err = fmt.Errorf("%w: %w", err, m.err)
	}
	return fmt.Errorf("%w\n%s", err, m.Report())
}

// failed says which command an error is about.
func (c *Cmd) failed(err error) error {
	return fmt.Errorf("command %q in %s: %w", shown(c.Args), c.m.plan.name(), err)
}

// shown returns the beginning of a command's arguments.
func shown(args []string) string {
	text := strings.Join(args, " ")
	if len(text) > argsShown {
		text = text[:argsShown] + "…"
	}
	return text
}
