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
// of all goroutines and runs no Cleanup. Shortly before that, harnesstest reports what the
// test is doing and where its record is.

// reportBefore is the longest time between the report and the deadline. If less than ten times
// as much is left when a wait begins, the time is a tenth of what is left.
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

// reportTimeout prints what a test is doing when the timeout is about to end it. It does not use
// t.Log, because package testing discards the log when the binary panics.
func reportTimeout(t testing.TB, doing string) {
	fmt.Fprintf(os.Stderr, "\nguesthouse: go test -timeout ends %s: %s\n", t.Name(), doing)
}

// failByTimeout reports the machine of a test that the timeout is about to end. It marks the
// machine's record as failed.
func failByTimeout(t testing.TB, m *harness.Machine) {
	before := m.Result()
	m.MarkFailed(errors.New("go test -timeout ended the test"))
	reportTimeout(t, fmt.Sprintf("its machine, %s, is %s; %s", before.Target, before.State, m.Report()))
}
