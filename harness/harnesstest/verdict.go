package harnesstest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"guesthouse.example/harness"
	"guesthouse.example/harness/console"
	"guesthouse.example/internal/printable"
)

// finish ends the machine when its test ends. It fails the test if the guest crashed, misbehaved
// or ended too early, and writes the test's verdict into the machine's record.
func (m *Machine) finish() {
	m.awaitCrash()
	m.awaitPowerOff()
	ended, err := m.ended()
	if broken := m.Machine.Close(); broken != nil && (err == nil || !errors.Is(err, broken)) {
		m.fail(broken)
	}
	switch crash := m.Console().Crash(); {
	case crash != "":
		m.fail(fmt.Errorf("the guest crashed during the test: %s", printable.Text(crash)))
	case !ended || m.mayEnd.Load():
	case err != nil:
		m.fail(fmt.Errorf("the machine ended during the test: %w", err))
	default:
		m.fail(fmt.Errorf("the machine powered off during the test, without a call of Shutdown or Wait: %s", printable.Text(powerOffReason(m.Result()))))
	}
	if err := m.Console().Rejected(); err != nil && !m.hasFailedBy(console.ErrRejected) {
		m.fail(err)
	}
	if warnings := m.Console().Warnings(); len(warnings) > 0 {
		m.fail(fmt.Errorf("the guest was at fault during the test:\n\t%s", strings.Join(printable.Lines(warnings), "\n\t")))
	}
	if hasFailed(m.t) {
		m.Machine.MarkFailed(m.verdict())
		m.t.Log(m.Report())
	}
}

// fail fails the test. The record keeps the first error.
func (m *Machine) fail(err error) {
	m.t.Helper()
	m.firstError.CompareAndSwap(nil, &err)
	m.t.Error(err)
}

// fatal fails the test and ends it.
func (m *Machine) fatal(err error) {
	m.t.Helper()
	m.fail(err)
	m.t.FailNow()
}

// hasFailedBy reports whether the first error of the machine wraps an error.
func (m *Machine) hasFailedBy(err error) bool {
	first := m.firstError.Load()
	return first != nil && errors.Is(*first, err)
}

// verdict returns why the test has failed, as far as the Machine knows.
func (m *Machine) verdict() error {
	if err := m.firstError.Load(); err != nil {
		return fmt.Errorf("the test failed: %w", *err)
	}
	if panicking() {
		return errors.New("the test panicked")
	}
	return errors.New("the test failed")
}

// hasFailed reports in a Cleanup whether the test has failed. Package testing marks a test
// that panics as failed only after its Cleanups.
func hasFailed(t testing.TB) bool { return t.Failed() || panicking() }

// panicking reports whether a panic is on the stack of the caller.
func panicking() bool {
	pcs := make([]uintptr, 64)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(1, pcs)])
	for {
		f, more := frames.Next()
		if f.Function == "runtime.gopanic" {
			return true
		}
		if !more {
			return false
		}
	}
}

// crashWithin bounds, in the machine's time, how long a failed test waits for its guest to
// report a crash.
const crashWithin = 500 * time.Millisecond

// awaitCrash gives the guest of a failed test time to report a crash. When a guest crashes, its
// connections often break before its console shows the crash.
func (m *Machine) awaitCrash() {
	if !hasFailed(m.t) {
		return
	}
	ctx, cancel := m.Machine.Within(context.Background(), crashWithin)
	defer cancel()
	m.Machine.Wait(ctx)
}

// powerOffWithin bounds, in the machine's time, how long a guest takes to power off that has said so.
const powerOffWithin = 10 * time.Second

// awaitPowerOff waits for the end of a machine whose guest powers off. Otherwise a test that ends at the same time would
// sometimes not notice.
func (m *Machine) awaitPowerOff() {
	if m.Result().PowerOff == "" {
		return
	}
	ctx, cancel := m.Machine.Within(context.Background(), powerOffWithin)
	defer cancel()
	m.Machine.Wait(ctx)
}

// powerOffReason returns why a guest has powered off and how its program ended.
func powerOffReason(r harness.Result) string {
	why := cmp.Or(r.PowerOff, "it did not say why")
	if r.Exit != nil {
		why += fmt.Sprintf(" (%v)", r.Exit)
	}
	return why
}

// ended reports whether the machine has ended, and how.
func (m *Machine) ended() (bool, error) {
	select {
	case <-m.Machine.Done():
		return true, m.Machine.Wait(context.Background())
	default:
		return false, nil
	}
}
