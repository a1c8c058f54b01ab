package harnesstest

import (
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"guesthouse.example/harness"
)

// When "go test -timeout" is over the test binary panics, which shows the stacks of all
// goroutines and runs nothing of a test's. So shortly before somebody says what the test was
// about and where its record is.

// warnBefore is how long before the end that is: a tenth of what is left, and at most this.
const warnBefore = time.Second

// beforeDeadline calls f shortly before the timeout of go test ends a test, unless stop is
// called before.
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
	timer := time.AfterFunc(left-min(warnBefore, left/10), f)
	return func() { timer.Stop() }
}

// sayTimeout tells what a test that the timeout is about to end was doing. Package testing
// would keep what t.Log gets.
func sayTimeout(t testing.TB, doing string) {
	fmt.Fprintf(os.Stderr, "\nguesthouse: go test -timeout ends %s: %s\n", t.Name(), doing)
}

// timeout tells about the machine of a test that the timeout is about to end.
func timeout(t testing.TB, m *harness.Machine) {
	before := m.Result()
	m.MarkFailed(errors.New("go test -timeout ended the test"))
	sayTimeout(t, fmt.Sprintf("its machine, %s, is %s; %s", before.Target, before.State, m.Report()))
}
