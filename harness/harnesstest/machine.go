package harnesstest

import (
	"context"
	"io/fs"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"guesthouse.example/harness"
	"guesthouse.example/harness/console"
)

// A Machine is a machine that belongs to a test. Its own methods take no context and return
// no error: each waits for at most [Within] of the machine's time, and ends the test if it
// fails. The methods of its field Machine take a context and return their errors; they are
// for a failure that the test expects.
//
// A Cleanup may call the methods too. As with t.FailNow, only the test's own goroutine may call
// the methods that can fail the test.
type Machine struct {
	Machine *harness.Machine

	t          testing.TB
	mayEnd     atomic.Bool           // the test expects the machine's end
	firstError atomic.Pointer[error] // why the machine failed the test
}

// do calls f with a context for one wait and ends the test if f fails.
func (m *Machine) do(f func(ctx context.Context) error) {
	m.t.Helper()
	// In a Cleanup the test's context has already ended.
	ctx, cancel := m.Machine.Within(context.WithoutCancel(m.t.Context()), Within)
	defer cancel()
	if err := f(ctx); err != nil {
		m.fatal(err)
	}
}

// Dial connects to a guest port that the Spec lists; see [harness.Machine.Dial]. The connection
// ends with the machine, and Dial's Cleanup closes it when the test ends. Its reads and writes
// fail after four times Within of wall time.
func (m *Machine) Dial(network string, port int) (conn net.Conn) {
	m.t.Helper()
	m.do(func(ctx context.Context) (err error) {
		conn, err = m.Machine.Dial(ctx, network, port)
		return err
	})
	conn.SetDeadline(time.Now().Add(4 * Within))
	m.t.Cleanup(func() { conn.Close() })
	return conn
}

// Expect waits until the console shows text that matches the pattern, after the text that
// the last Expect matched. It returns the match and its submatches; see
// [console.Console.Expect].
func (m *Machine) Expect(pattern string) (match []string) {
	m.t.Helper()
	m.do(func(ctx context.Context) (err error) {
		match, err = m.Console().Expect(ctx, pattern)
		return err
	})
	return match
}

// ExpectAll waits until the console shows a match of every pattern, in any order; see
// [console.Console.ExpectAll].
func (m *Machine) ExpectAll(patterns ...string) {
	m.t.Helper()
	m.do(func(ctx context.Context) error { return m.Console().ExpectAll(ctx, patterns...) })
}

// Reject makes the test fail if the console shows text that matches the pattern, from the end of the last match of
// Expect until the machine ends; see [console.Console.Reject].
func (m *Machine) Reject(pattern string) {
	m.t.Helper()
	if err := m.Console().Reject(pattern); err != nil {
		m.fatal(err)
	}
}

// Idle waits for a time, and ends the test if the guest prints anything in that time.
func (m *Machine) Idle(d time.Duration) {
	m.t.Helper()
	if err := m.Console().Idle(context.WithoutCancel(m.t.Context()), d); err != nil {
		m.fatal(err)
	}
}

// Send types a line on the console. Expect does not match the echo of that line; see
// [console.Console.Send].
func (m *Machine) Send(line string) {
	m.t.Helper()
	m.do(func(ctx context.Context) error { return m.Console().Send(ctx, line) })
}

// Type types keys on the console, without a line end; see [console.Console.Type].
func (m *Machine) Type(keys string) {
	m.t.Helper()
	m.do(func(ctx context.Context) error { return m.Console().Type(ctx, []byte(keys)) })
}

// CopyIn copies a file or a directory of the host into the guest; see [harness.Machine.CopyIn]. It waits for at
// most ten times [Within] of the machine's time.
func (m *Machine) CopyIn(hostPath, guestPath string) {
	m.t.Helper()
	m.copy(func(ctx context.Context) error { return m.Machine.CopyIn(ctx, hostPath, guestPath) })
}

// CopyOut copies a file or a directory of the guest to the host; see [harness.Machine.CopyOut]. It waits for at
// most ten times [Within] of the machine's time.
func (m *Machine) CopyOut(guestPath, hostPath string) {
	m.t.Helper()
	m.copy(func(ctx context.Context) error { return m.Machine.CopyOut(ctx, guestPath, hostPath) })
}

// copy calls f with a context that leaves time for much data.
func (m *Machine) copy(f func(ctx context.Context) error) {
	m.t.Helper()
	ctx, cancel := m.Machine.Within(context.WithoutCancel(m.t.Context()), 10*Within)
	defer cancel()
	if err := f(ctx); err != nil {
		m.fatal(err)
	}
}

// FS returns the guest's files, for reading; see [harness.Machine.FS].
func (m *Machine) FS() fs.FS { return m.Machine.FS() }

// Output runs a command in the guest without the console, and returns the command's
// standard output. The test fails if the command does not exit with status 0. It is short for
// the Output method of [Machine.Command].
func (m *Machine) Output(name string, args ...string) (out string) {
	m.t.Helper()
	return m.Command(name, args...).Output()
}

// Event waits for the guest's next event and returns the text that the guest passed to guest.Event.
func (m *Machine) Event() (text string) {
	m.t.Helper()
	m.do(func(ctx context.Context) (err error) {
		text, err = m.Machine.Event(ctx)
		return err
	})
	return text
}

// Stats returns the guest's statistics.
func (m *Machine) Stats() (stats harness.Stats) {
	m.t.Helper()
	m.do(func(ctx context.Context) (err error) {
		stats, err = m.Machine.Stats(ctx)
		return err
	})
	return stats
}

// Save saves the machine as a template in a new directory; see [harness.Machine.Save].
func (m *Machine) Save(dir string) (template *harness.Template) {
	m.t.Helper()
	m.do(func(ctx context.Context) (err error) {
		template, err = m.Machine.Save(ctx, dir)
		return err
	})
	return template
}

// SetLink plugs the guest's network cable in if up is true, and unplugs it otherwise.
func (m *Machine) SetLink(up bool) {
	m.t.Helper()
	m.do(func(ctx context.Context) error { return m.Machine.SetLink(ctx, up) })
}

// Shutdown powers the guest off. The test fails if the guest does not power off or has
// crashed.
func (m *Machine) Shutdown() {
	m.t.Helper()
	m.mayEnd.Store(true)
	m.do(m.Machine.Shutdown)
}

// Wait waits until the guest powers off by itself. The test fails if the guest crashes, if
// its program exits with a status other than 0 or by a signal, or if the machine ends in
// another way.
func (m *Machine) Wait() {
	m.t.Helper()
	m.mayEnd.Store(true)
	m.do(m.Machine.Wait)
}

// WaitExit waits until the guest's program has exited with the given status and the machine has
// ended. The test fails if the machine ends in another way.
func (m *Machine) WaitExit(status int) {
	m.t.Helper()
	m.mayEnd.Store(true)
	m.do(func(ctx context.Context) error { return m.Machine.WaitExit(ctx, status) })
}

// Close ends the machine at once, like a power cut. The test fails if the machine's record
// is incomplete.
func (m *Machine) Close() {
	m.t.Helper()
	m.mayEnd.Store(true)
	if err := m.Machine.Close(); err != nil {
		m.fatal(err)
	}
}

// Console returns the guest's serial console.
func (m *Machine) Console() *console.Console { return m.Machine.Console() }

// Ports returns the guest's forwarded ports, each with its port on the host.
func (m *Machine) Ports() []harness.Port { return m.Machine.Ports() }

// Result returns the machine's state and what is known about its boot and its end.
func (m *Machine) Result() harness.Result { return m.Machine.Result() }

// Report returns what helps to understand a failure. The log of a failed test includes it.
func (m *Machine) Report() harness.Report { return m.Machine.Report() }

// Spec returns the machine's Spec with its defaults filled in.
func (m *Machine) Spec() harness.Spec { return m.Machine.Spec() }

// Dir returns the directory of the machine's record.
func (m *Machine) Dir() string { return m.Machine.Dir() }
