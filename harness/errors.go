package harness

import (
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"
)

// ErrGuest is wrapped by every error whose cause is the guest: it crashed, it
// hung, it ended. Other errors come from the host.
var ErrGuest = errors.New("the guest failed")

// A MissingQEMUError says that the target's emulator is not installed.
type MissingQEMUError struct {
	Binary  string // what was looked for
	Package string // the Debian package that has it
	Err     error
}

func (e *MissingQEMUError) Error() string {
	return fmt.Sprintf("QEMU is missing: %v; %s", e.Err, e.Hint())
}

// Hint says how to install it.
func (e *MissingQEMUError) Hint() string {
	return "install it with: apt-get install --no-install-recommends " + e.Package
}

func (e *MissingQEMUError) Unwrap() error { return e.Err }

// A BootError says why a machine that was started did not become ready, and
// shows what one needs to find out more.
type BootError struct {
	Target  string
	Err     error    // the cause
	Console []string // the last 20 lines of the console, or 20 from a crash on
	Stderr  string   // what QEMU said itself
	Dir     string   // the record
	Repeat  string   // the command that boots the same machine again
}

func (e *BootError) Unwrap() error { return e.Err }

func (e *BootError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "boot %s: %v\n", e.Target, e.Err)
	if len(e.Console) == 0 {
		b.WriteString("its console is empty\n")
	} else {
		fmt.Fprintf(&b, "its console:\n\t%s\n", strings.Join(e.Console, "\n\t"))
	}
	if e.Stderr != "" {
		fmt.Fprintf(&b, "QEMU said:\n\t%s\n", strings.ReplaceAll(e.Stderr, "\n", "\n\t"))
	}
	fmt.Fprintf(&b, "record: %s\nrepeat: %s", e.Dir, e.Repeat)
	return b.String()
}

const (
	tailLines   = 20 // of the console, in errors
	beforeCrash = 3  // of them, where a crash is known
)

// evidence returns the lines of the console that an error shows: the last ones,
// or where the guest crashed those around the crash, as much may follow it.
func evidence(c *Console) []string {
	crash := c.Crash()
	if crash == "" {
		return c.Tail(tailLines)
	}
	lines := c.Tail(math.MaxInt)
	for i, line := range slices.Backward(lines) {
		if strings.Contains(line, crash) {
			from := max(0, i-beforeCrash)
			return lines[from:min(len(lines), from+tailLines)]
		}
	}
	return c.Tail(tailLines)
}

func (m *Machine) bootError(err error) *BootError {
	return &BootError{
		Target:  m.plan.Target,
		Err:     err,
		Console: evidence(m.console),
		Stderr:  m.record.stderrText(),
		Dir:     m.record.dir,
		Repeat:  "go run guesthouse.example/harness/cmd/guesthouse run -spec " + filepath.Join(m.record.dir, "spec.json"),
	}
}

// describe says how a QEMU process that is gone has ended.
func (p *process) describe() error {
	<-p.done
	if p.err != nil {
		return fmt.Errorf("QEMU ended: %w", p.err)
	}
	return errors.New("QEMU ended by itself")
}
