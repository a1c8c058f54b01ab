package harness

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"syscall"

	"guesthouse.example/internal/printable"
	"guesthouse.example/internal/wire"
)

// An Exit is how a program in the guest ended.
type Exit struct {
	Status int            `json:"status"`           // 0 to 255, as it gave it; -1 after a signal
	Signal syscall.Signal `json:"signal,omitempty"` // that ended it; 0 if none did
	Why    string         `json:"why,omitempty"`    // in the words of the guest's kernel, of package guest or of init; may be empty
}

// OK says that it ended well: with status 0.
func (e Exit) OK() bool { return e.Status == 0 && e.Signal == 0 }

// Code returns the status as a shell has it: after a signal 128 and its number.
func (e Exit) Code() int {
	if e.Signal != 0 {
		return 128 + int(e.Signal)
	}
	return e.Status
}

// String says it as "exit status 3" or "signal 9 (killed)", and why.
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

// An ExitError says that the guest's program has ended without having been asked to, and not with
// status 0. It wraps ErrGuest.
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

// programEnd returns how the guest's program ended in a machine that is gone: as init's agent
// told, or else as init said on the console. It is nil where nobody said so, as of
// a program that has powered the machine off itself. asked says that it had been asked to end.
func (m *Machine) programEnd() (exit *Exit, asked bool) {
	told := m.agent.Exit()
	if told == nil {
		told = exitOnConsole(m.console.Tail(lastWordsWithin))
	}
	if told == nil {
		return nil, false
	}
	e := exitOf(*told)
	if !e.OK() && e.Why == "" && !told.Asked {
		e.Why = m.agent.PowerOffReason()
	}
	return &e, told.Asked || m.typedOff.Load()
}

// lastWords is init's last line on the console. It tells of the program's end also where no agent
// can.
var lastWords = regexp.MustCompile(`^init: /bin/uinit has ended: (?:exit status (\d{1,3})|signal (\d{1,2}) \([^)]*\)); the machine powers off$`)

const lastWordsWithin = 20 // lines of the console's end

// exitOnConsole looks for init's last line. It is the last of its kind, for whoever else may have
// printed one did so before.
func exitOnConsole(lines []string) *wire.Exit {
	for _, line := range slices.Backward(lines) {
		if m := lastWords.FindStringSubmatch(line); m != nil {
			status, _ := strconv.Atoi(m[1]) // one of the two is empty
			signal, _ := strconv.Atoi(m[2])
			return &wire.Exit{Status: status, Signal: signal}
		}
	}
	return nil
}

// poweredOff returns why a machine that has powered off failed; nil if it did not. Whoever was asked
// to end may do so with any status, and by the signals by which it is asked.
func poweredOff(exit *Exit, asked bool) error {
	switch {
	case exit == nil, exit.OK():
		return nil
	case asked && (exit.Signal == 0 || exit.Signal == syscall.SIGTERM || exit.Signal == syscall.SIGKILL):
		return nil
	}
	return &ExitError{*exit}
}

// WaitExit waits until the machine has ended because the guest's program ended with that status,
// which is no failure then. After any other end its error is that of Wait, or says how the
// program ended.
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
		return fmt.Errorf("%w: the machine has ended, and nobody said how its program did: exit status %d was expected", ErrGuest, status)
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
