package sys

import (
	"os"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestThreadsCountTheTimeOnAProcessor(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	self := func() Thread {
		all := Threads(os.Getpid())
		i := slices.IndexFunc(all, func(thread Thread) bool { return thread.ID == unix.Gettid() })
		require.NotEqual(t, -1, i)
		return all[i]
	}
	before := self()
	require.EqualValues(t, 'R', before.State, "this thread runs")
	for start := time.Now(); time.Since(start) < 20*time.Millisecond; {
	}
	require.Greater(t, self().Ran+self().Waited, before.Ran+before.Waited)
	require.Empty(t, Threads(-1))
}
