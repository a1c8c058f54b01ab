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

// An ExitError says that the guest's program ended unasked, by a signal or with a status other than 0. It
// wraps ErrGuest.
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

// programEnd returns how the guest's program ended in a machine that is gone. The agent in init tells it,
// or else init's last line on the console does. The exit is nil if neither does, as when the program
// itself powers the machine off. asked reports whether the program had been asked to end.
func (m *Machine) programEnd() (exit *Exit, asked bool) {
	told := m.vm.Agent.Exit()
	if told == nil {
		told = exitOnConsole(m.vm.Console.Tail(lastWordsWithin))
	}
	if told == nil {
		return nil, false
	}
	e := exitOf(*told)
	if !e.OK() && e.Why == "" && !told.Asked {
		e.Why = m.vm.Agent.PowerOffReason()
	}
	return &e, told.Asked || m.typedOff.Load()
}

// lastWords matches init's last line on the console, which tells of the program's end even if the agent
// cannot.
var lastWords = regexp.MustCompile(`^init: /bin/uinit has ended: (?:exit status (\d{1,3})|signal (\d{1,2}) \([^)]*\)); the machine powers off$`)

const lastWordsWithin = 20 // lines of the console's end

// exitOnConsole looks for init's last line, from the end: a program may have printed such a line before.
func exitOnConsole(lines []string) *wire.Exit {
	for _, line := range slices.Backward(lines) {
		if m := lastWords.FindStringSubmatch(line); m != nil {
			status, _ := strconv.Atoi(m[1]) // the pattern matches one of the two
			signal, _ := strconv.Atoi(m[2])
			return &wire.Exit{Status: status, Signal: signal}
		}
	}
	return nil
}

// poweredOff returns the error of a machine that has powered off; nil if it has none. A program that was
// asked to end may exit with any status, and be ended by the signals that ask it.
func poweredOff(exit *Exit, asked bool) error {
	switch {
	case exit == nil, exit.OK():
		return nil
	case asked && (exit.Signal == 0 || exit.Signal == syscall.SIGTERM || exit.Signal == syscall.SIGKILL):
		return nil
	}
	return &ExitError{*exit}
}

// WaitExit waits until the guest's program has exited with a status and the machine has ended, and returns
// nil then. After any other end it returns the error of Wait, or one that says how the program ended.
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
