package harness

import (
	"context"
	"fmt"
	"syscall"

	"guesthouse.example/internal/printable"
	"guesthouse.example/internal/wire"
)

// An Exit is how a program in the guest ended.
type Exit struct {
	Status int            `json:"status"`           // 0 to 255; -1 if a signal ended the program
	Signal syscall.Signal `json:"signal,omitempty"` // the signal that ended the program; 0 if none did
	Why    string         `json:"why,omitempty"`    // the reason that the guest's kernel, package guest or init gave; may be empty
}

// OK reports whether the program exited with status 0.
func (e Exit) OK() bool { return e.Status == 0 && e.Signal == 0 }

// Code returns the status as a shell does: 128 plus the number of a signal.
func (e Exit) Code() int {
	if e.Signal != 0 {
		return 128 + int(e.Signal)
	}
	return e.Status
}

// String returns "exit status 3" or "signal 9 (killed)", and the reason.
func (e Exit) String() string {
	text := fmt.Sprintf("exit status %d", e.Status)
	if e.Signal != 0 {
		text = fmt.Sprintf("signal %d (%v)", int(e.Signal), e.Signal)
	}
	if e.Why != "" {
		text += ": " + printable.Text(e.Why)
	}
	return text
}

// An ExitError says that a signal ended the guest's program, or that the program exited with a status
// other than 0, although nobody had asked it to end. It wraps ErrGuest.
type ExitError struct{ Exit }

func (e *ExitError) Error() string {
	return ErrGuest.Error() + ": its program has ended: " + e.Exit.String()
}

func (e *ExitError) Unwrap() error { return ErrGuest }

func exitOf(w wire.Exit) Exit {
	if w.Signal != 0 {
		return Exit{Status: -1, Signal: syscall.Signal(w.Signal), Why: w.Why}
	}
	return Exit{Status: w.Status, Why: w.Why}
}

// programEnd returns how the guest's program ended, after the end of the machine. The exit is nil if that is
// unknown, for example because the program itself powered the machine off. asked reports whether the
// program had been asked to end.
func (m *Machine) programEnd() (exit *Exit, asked bool) {
	reported := m.vm.ProgramExit()
	if reported == nil {
		return nil, false
	}
	e := exitOf(*reported)
	if !e.OK() && e.Why == "" && !reported.Asked {
		e.Why = m.vm.Agent.PowerOffReason()
	}
	return &e, reported.Asked || m.typedOff.Load()
}

// poweredOff returns the error of a machine that has powered off, or nil. A program that was asked to end
// may exit with any status, or die of SIGTERM or SIGKILL, which init sends to end it.
func poweredOff(exit *Exit, asked bool) error {
	switch {
	case exit == nil, exit.OK():
		return nil
	case asked && (exit.Signal == 0 || exit.Signal == syscall.SIGTERM || exit.Signal == syscall.SIGKILL):
		return nil
	}
	return &ExitError{*exit}
}

// WaitExit waits until the machine has ended, and returns nil if the guest's program exited with a status.
// Otherwise it returns the error of Wait, or an error that wraps ErrGuest and says how the program ended.
func (m *Machine) WaitExit(ctx context.Context, status int) error {
	err := m.Wait(ctx)
	if m.runs() {
		return err
	}
	exit := m.exit
	if _, other := err.(*ExitError); err != nil && !other {
		return err
	}
	switch {
	case exit == nil:
		return fmt.Errorf("%w: the machine has ended, and how its program ended is unknown: exit status %d was expected", ErrGuest, status)
	case exit.Signal != 0 || exit.Status != status:
		return fmt.Errorf("%w: its program has ended: %v: exit status %d was expected", ErrGuest, exit, status)
	}
	m.writeResult(func(r *Result) {
		if err != nil && r.Error == err.Error() {
			r.State, r.Error = "ended", ""
		}
	})
	return nil
}
