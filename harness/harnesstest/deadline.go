package harnesstest

import (
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"guesthouse.example/harness"
)

// When the time of go test -timeout is over, the test binary panics. It prints the stacks
// of all goroutines and runs no Cleanup. So harnesstest reports shortly before what the test
// was doing and where its record is.

// reportBefore is how long before the deadline harnesstest reports: a tenth of the time
// that is left when a wait begins, but at most this.
const reportBefore = time.Second

// beforeDeadline calls f shortly before go test -timeout ends the test, unless stop is
// called first.
func beforeDeadline(t testing.TB, f func()) (stop func()) {
	limited, ok := t.(interface{ Deadline() (time.Time, bool) })
	if !ok {
		return func() {}
	}
	deadline, ok := limited.Deadline()
	if !ok {
		return func() {}
	}
	left := time.Until(deadline)
	timer := time.AfterFunc(left-min(reportBefore, left/10), f)
	return func() { timer.Stop() }
}

// reportTimeout prints what a test was doing that the timeout is about to end. Package
// testing would not print what t.Log gets.
func reportTimeout(t testing.TB, doing string) {
	fmt.Fprintf(os.Stderr, "\nguesthouse: go test -timeout ends %s: %s\n", t.Name(), doing)
}

// failByTimeout reports the machine of a test that the timeout is about to end and marks
// its record as failed.
func failByTimeout(t testing.TB, m *harness.Machine) {
	before := m.Result()
	m.MarkFailed(errors.New("go test -timeout ended the test"))
	reportTimeout(t, fmt.Sprintf("its machine, %s, is %s; %s", before.Target, before.State, m.Report()))
}
