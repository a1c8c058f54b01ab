package harness

import (
	"fmt"
	"path/filepath"
	"strings"

	"guesthouse.example/harness/internal/guestfault"
	"guesthouse.example/internal/printable"
	"guesthouse.example/internal/shellquote"
)

// ErrGuest is wrapped by every error whose cause is the guest: it crashed, hung or
// ended. The cause of any other error is the host or the caller.
var ErrGuest = guestfault.ErrGuest

// A MissingQEMUError says that QEMU is not installed.
type MissingQEMUError struct {
	Binary  string // the name or path that was looked up
	Package string // the Debian package that has it; empty for a binary that the Spec names
	Err     error
}

func (e *MissingQEMUError) Error() string {
	if hint := e.Hint(); hint != "" {
		return fmt.Sprintf("QEMU is missing: %v; %s", e.Err, hint)
	}
	return fmt.Sprintf("QEMU is missing: %v", e.Err)
}

// Hint says how to install QEMU; it is empty for a binary that the Spec names.
func (e *MissingQEMUError) Hint() string {
	if e.Package == "" {
		return ""
	}
	return "install it with: apt-get install --no-install-recommends " + e.Package
}

func (e *MissingQEMUError) Unwrap() error { return e.Err }

// A BootError says why a machine that was started did not become ready. Its Report
// shows what the machine did.
type BootError struct {
	Target string
	Err    error // the cause
	Report
}

func (e *BootError) Unwrap() error { return e.Err }

func (e *BootError) Error() string {
	return fmt.Sprintf("boot %s: %v\n%s", e.Target, e.Err, e.Report)
}

// A Report shows what a machine did, to explain a failure. Its fields have the guest's bytes as they are;
// String makes them safe for a terminal.
type Report struct {
	Console  []string // the last 20 lines of the console, or a crash with its trace
	Code     []string // the functions, files and lines of addresses in a crash, by the image's symbols
	Warnings []string // the lines of the console that [console.Console.Warnings] returns
	Stderr   string   // the end of what QEMU printed on its standard error
	Stopped  []string // Stopped of the Result
	Net      []string // Net of the Result
	Dir      string   // the record; empty if it is not kept
	Repeat   string   // the command that boots the same machine again; empty without a record
}

func (r Report) String() string {
	var b strings.Builder
	if len(r.Console) == 0 {
		b.WriteString("its console is empty")
	} else {
		fmt.Fprintf(&b, "its console:\n\t%s", strings.Join(printable.Lines(r.Console), "\n\t"))
	}
	if len(r.Code) > 0 {
		fmt.Fprintf(&b, "\nby the symbols of its image:\n\t%s", strings.Join(printable.Lines(r.Code), "\n\t"))
	}
	if len(r.Warnings) > 0 {
		fmt.Fprintf(&b, "\nits warnings:\n\t%s", strings.Join(printable.Lines(r.Warnings), "\n\t"))
	}
	if r.Stderr != "" {
		fmt.Fprintf(&b, "\nQEMU said:\n\t%s", strings.ReplaceAll(printable.Text(r.Stderr), "\n", "\n\t"))
	}
	if len(r.Stopped) > 0 {
		fmt.Fprintf(&b, "\nits network stopped it from reaching %s (Spec.Outbound allows more)", strings.Join(r.Stopped, ", "))
	}
	for _, n := range r.Net {
		fmt.Fprintf(&b, "\nits network: %s", n)
	}
	if r.Dir != "" {
		fmt.Fprintf(&b, "\nrecord: %s\nrepeat: %s", r.Dir, r.Repeat)
	}
	return b.String()
}

// Report returns the machine's report so far.
func (m *Machine) Report() Report {
	evidence := m.vm.Console.Evidence()
	r := Report{Console: evidence, Code: m.crashCode(evidence), Warnings: m.vm.Console.Warnings(), Stderr: m.vm.Record.StderrText(), Stopped: m.vm.Filter.Stopped(), Net: m.attached.describe()}
	if m.keepsRecord() {
		r.Dir = m.vm.Record.Dir()
		command := "guesthouse.example/harness/cmd/guesthouse"
		if len(m.attached) > 0 {
			command = "guesthouse.example/harness/lan/cmd/guesthouse" // it has the network
		}
		r.Repeat = "go run " + command + " run -spec " + shellquote.Word(filepath.Join(r.Dir, "spec.json"))
	}
	return r
}

func (m *Machine) bootError(err error) *BootError {
	return &BootError{Target: m.plan.name(), Err: err, Report: m.Report()}
}
