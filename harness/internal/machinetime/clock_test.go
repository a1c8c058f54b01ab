package machinetime

import (
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// fakeClock is a Clock whose wall clock and process a test sets.
type fakeClock struct {
	Clock
	elapsed time.Duration
	process Sample
	exited  bool
}

func newFakeClock() *fakeClock {
	f := &fakeClock{}
	f.wall = func() time.Duration { return f.elapsed }
	f.sample = func() (Sample, bool) { return f.process, !f.exited }
	return f
}

// step advances the wall clock and sets how long each thread has waited since its start.
func (f *fakeClock) step(d time.Duration, waited map[int]time.Duration, stopped bool) Moment {
	f.elapsed += d
	f.process.Waited, f.process.Stopped = waited, stopped
	return f.Now()
}

type times = map[int]time.Duration

func TestMachineTimeExcludesWaitingForAProcessor(t *testing.T) {
	f := newFakeClock()
	require.Equal(t, Moment{Machine: 2 * time.Second, Wall: 3 * time.Second}, f.step(3*time.Second, times{1: time.Second}, false),
		"a wait before the first reading counts")
	require.Equal(t, 5*time.Second, f.step(3*time.Second, times{1: time.Second}, false).Machine, "time passes for an idle machine")
	require.Equal(t, 6*time.Second, f.step(3*time.Second, times{1: 3 * time.Second, 2: time.Second}, false).Machine,
		"threads wait side by side")
	require.Equal(t, 9*time.Second, f.step(3*time.Second, times{2: time.Second}, false).Machine, "a thread has exited")
}

func TestMachineTimeExcludesStopsBySignals(t *testing.T) {
	f := newFakeClock()
	f.step(time.Second, nil, false)
	require.Equal(t, time.Second, f.step(time.Minute, nil, true).Machine)
	require.Equal(t, 2*time.Second, f.step(time.Second, nil, false).Machine)
}

func TestMachineTimeExcludesStealTime(t *testing.T) {
	f := newFakeClock()
	f.last.Stolen = times{0: time.Hour, 1: time.Minute} // before the machine's start
	f.process.Stolen = times{0: time.Hour + time.Second, 1: time.Minute + 2*time.Second}
	require.Equal(t, 7*time.Second, f.step(10*time.Second, times{1: time.Second}, false).Machine)
	require.Equal(t, 17*time.Second, f.step(10*time.Second, times{1: time.Second}, false).Machine)
}

func TestMachineTimeIsNeverNegative(t *testing.T) {
	f := newFakeClock()
	require.Zero(t, f.step(time.Second, times{1: time.Hour}, false).Machine)
}

func TestMachineTimeIsWallTimeWithoutStatistics(t *testing.T) {
	f := newFakeClock()
	f.exited = true
	require.Equal(t, Moment{Machine: time.Second, Wall: time.Second}, f.step(time.Second, times{1: time.Second}, true))
	_, ok := sampleProcess(-1)
	require.False(t, ok)
	s, ok := sampleProcess(os.Getpid())
	require.True(t, ok)
	require.False(t, s.Stopped)
}

func TestANewClockStopsReadingAProcessThatHasBeenReaped(t *testing.T) {
	exited := make(chan struct{})
	c := New(os.Getpid(), 1, exited, time.Now())
	_, ok := c.sample()
	require.True(t, ok)
	close(exited)
	_, ok = c.sample()
	require.False(t, ok)
}
