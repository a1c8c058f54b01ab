package harnesstest

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"guesthouse.example/harness"
)

// Before package testing prints the stacks of all goroutines, harnesstest prints the test's
// machine and its record.
func TestATimeoutNamesTheRecord(t *testing.T) {
	t.Parallel()
	Spec(t, "arm64", echoGuest) // the inner test only boots it
	tmp := t.TempDir()
	out, ok := run(t, "timeout", []string{"TMPDIR=" + tmp}, "-test.timeout=20s")
	require.False(t, ok, out)
	said, _, panicked := strings.Cut(out, "panic: test timed out after 20s")
	require.True(t, panicked, out)
	result, dir := onlyResult(t, tmp)
	require.Regexp(t, `(?m)^guesthouse: go test -timeout ends TestInner: its machine, arm64, is (booting|ready); its console:$`, said)
	require.Contains(t, said, "\nrecord: "+dir+"\nrepeat: go run ")
	require.Equal(t, harness.StateFailed, result.State)
	require.Equal(t, "go test -timeout ended the test", result.Error)
}

// limited is a test with a deadline.
type limited struct {
	testing.TB
	deadline time.Time
}

func (l limited) Deadline() (time.Time, bool) { return l.deadline, !l.deadline.IsZero() }

func TestATimeoutIsReportedShortlyBeforeItEndsTheTest(t *testing.T) {
	for within, at := range map[time.Duration]time.Duration{
		time.Minute: 59 * time.Second, 5 * time.Second: 4500 * time.Millisecond,
	} {
		synctest.Test(t, func(t *testing.T) {
			began := time.Now()
			reported := make(chan time.Duration, 1)
			beforeDeadline(limited{t, began.Add(within)}, func() { reported <- time.Since(began) })
			require.Equal(t, at, <-reported)
		})
	}
	synctest.Test(t, func(t *testing.T) {
		never := func() { t.Error("it ended in time, or has no deadline") }
		began := time.Now()
		stop := beforeDeadline(limited{t, began.Add(time.Minute)}, never)
		beforeDeadline(limited{t, time.Time{}}, never)
		time.Sleep(58 * time.Second)
		stop()
		time.Sleep(time.Minute)
		synctest.Wait()
	})
}
