package harnesstest

import (
	"errors"
	"fmt"
	"runtime"
	"testing"

	"guesthouse.example/harness/internal/verdict"
)

// finish ends the machine when its test ends. It fails the test if the guest crashed, misbehaved
// or ended too early, and writes the test's verdict into the machine's record.
func (m *Machine) finish() {
	var failed error
	if hasFailed(m.t) {
		failed = m.verdict()
	}
	for _, reason := range verdict.Of(m.Machine, failed, m.mayEnd.Load()) {
		m.fail(reason)
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
