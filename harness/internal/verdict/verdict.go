// Package verdict ends the machine of a test, and finds the reasons for which the machine fails the test. Tests in Go
// and scenarios have the same reasons.
package verdict

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"guesthouse.example/harness"
	"guesthouse.example/harness/console"
	"guesthouse.example/internal/printable"
)

const (
	// A failed test waits this long, in the machine's time, for its guest to report a crash. When a guest
	// crashes, its connections often break before its console shows the crash.
	crashWithin = 500 * time.Millisecond

	// A guest that has announced its power-off takes at most this long, in the machine's time.
	powerOffWithin = 10 * time.Second
)

// Of closes a machine, and returns the reasons for which it fails its test: its guest has crashed, has shown a fault or
// rejected text, or the machine has ended although the test has not ended it. failed is the error with which
// the test has failed already, or nil; Of does not repeat it. mayEnd says that the test expects the machine's end.
func Of(m *harness.Machine, failed error, mayEnd bool) (reasons []error) {
	add := func(format string, args ...any) { reasons = append(reasons, fmt.Errorf(format, args...)) }
	if failed != nil {
		waitEnd(m, crashWithin)
	}
	if m.Result().PowerOff != "" {
		waitEnd(m, powerOffWithin) // otherwise a test that ends at this moment would sometimes not notice
	}
	ended, err := hasEnded(m)
	if broken := m.Close(); broken != nil && (err == nil || !errors.Is(err, broken)) {
		reasons = append(reasons, broken)
	}
	switch crash := m.Console().Crash(); {
	case crash != "":
		add("the guest crashed during the test: %s", printable.Text(crash))
	case !ended || mayEnd:
	case err != nil:
		add("the machine ended during the test: %w", err)
	default:
		add("the machine powered off during the test, without a call of Shutdown or Wait: %s", printable.Text(powerOffReason(m.Result())))
	}
	if err := m.Console().Rejected(); err != nil && !errors.Is(failed, console.ErrRejected) {
		reasons = append(reasons, err)
	}
	if warnings := m.Console().Warnings(); len(warnings) > 0 {
		add("the guest was at fault during the test:\n\t%s", strings.Join(printable.Lines(warnings), "\n\t"))
	}
	return reasons
}

// waitEnd waits for the machine's end, but not longer than a time of the machine.
func waitEnd(m *harness.Machine, d time.Duration) {
	ctx, cancel := m.Within(context.Background(), d)
	defer cancel()
	m.Wait(ctx)
}

// hasEnded reports whether the machine has ended, and how.
func hasEnded(m *harness.Machine) (bool, error) {
	select {
	case <-m.Done():
		return true, m.Wait(context.Background())
	default:
		return false, nil
	}
}

// powerOffReason returns why a guest has powered off and how its program ended.
func powerOffReason(r harness.Result) string {
	why := cmp.Or(r.PowerOff, "it did not say why")
	if r.Exit != nil {
		why += fmt.Sprintf(" (%v)", r.Exit)
	}
	return why
}
