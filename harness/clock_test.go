package harness

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// fakeClock is a clock whose wall and process the test moves.
type fakeClock struct {
	clock
	t    time.Duration
	seen sample
	gone bool
}

func newFakeClock() *fakeClock {
	f := &fakeClock{}
	f.wall = func() time.Duration { return f.t }
	f.look = func() (sample, bool) { return f.seen, !f.gone }
	return f
}

// step moves the wall on and says what each thread has waited since its start.
func (f *fakeClock) step(d time.Duration, waited map[int]time.Duration, stopped bool) moment {
	f.t += d
	f.seen.waited, f.seen.stopped = waited, stopped
	return f.now()
}

type waits = map[int]time.Duration

func TestMachineTimeLeavesOutWaitingForAProcessor(t *testing.T) {
	f := newFakeClock()
	require.Equal(t, moment{machine: 2 * time.Second, wall: 3 * time.Second}, f.step(3*time.Second, waits{1: time.Second}, false),
		"what was lost before the first look counts")
	require.Equal(t, 5*time.Second, f.step(3*time.Second, waits{1: time.Second}, false).machine, "an idle machine lives on")
	require.Equal(t, 6*time.Second, f.step(3*time.Second, waits{1: 3 * time.Second, 2: time.Second}, false).machine,
		"threads wait side by side")
	require.Equal(t, 9*time.Second, f.step(3*time.Second, waits{2: time.Second}, false).machine, "a thread has ended")
}

func TestMachineTimeLeavesOutBeingStopped(t *testing.T) {
	f := newFakeClock()
	f.step(time.Second, nil, false)
	require.Equal(t, time.Second, f.step(time.Minute, nil, true).machine)
	require.Equal(t, 2*time.Second, f.step(time.Second, nil, false).machine)
}

func TestMachineTimeLeavesOutWhatTheHostsHostTook(t *testing.T) {
	f := newFakeClock()
	f.last.stolen = waits{0: time.Hour, 1: time.Minute} // before the machine
	f.seen.stolen = waits{0: time.Hour + time.Second, 1: time.Minute + 2*time.Second}
	require.Equal(t, 7*time.Second, f.step(10*time.Second, waits{1: time.Second}, false).machine)
	require.Equal(t, 17*time.Second, f.step(10*time.Second, waits{1: time.Second}, false).machine)
}

func TestMachineTimeIsNeverNegative(t *testing.T) {
	f := newFakeClock()
	require.Zero(t, f.step(time.Second, waits{1: time.Hour}, false).machine)
}

func TestMachineTimeIsTheWallsWhereTheKernelSaysNothing(t *testing.T) {
	f := newFakeClock()
	f.gone = true
	require.Equal(t, moment{machine: time.Second, wall: time.Second}, f.step(time.Second, waits{1: time.Second}, true))
	_, ok := lookAt(-1)
	require.False(t, ok)
	s, ok := lookAt(os.Getpid())
	require.True(t, ok)
	require.False(t, s.stopped)
}

func TestADeadlineInMachineTime(t *testing.T) {
	for name, c := range map[string]struct {
		t       time.Duration
		seen    sample
		d       time.Duration
		because string // empty: it does not end
	}{
		"on time":  {30 * time.Second, sample{}, 30 * time.Second, "not within 30s of the machine's time"},
		"loaded":   {82 * time.Second, sample{waited: waits{1: 52 * time.Second}}, 30 * time.Second, "not within 30s of the machine's time (1m22s on this loaded host)"},
		"not yet":  {82 * time.Second, sample{waited: waits{1: 53 * time.Second}}, 30 * time.Second, ""},
		"for ever": {300 * time.Second, sample{waited: waits{1: 300 * time.Second}}, 30 * time.Second, "not within 30s of the machine's time (5m0s on this loaded host)"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFakeClock()
			f.t, f.seen = c.t, c.seen
			ctx, cancel := f.until(t.Context(), moment{}, c.d, lateError(c.d))
			defer cancel()
			if c.because == "" {
				select {
				case <-ctx.Done():
					t.Fatal(context.Cause(ctx))
				case <-time.After(5 * clockTick):
				}
				return
			}
			<-ctx.Done()
			require.EqualError(t, context.Cause(ctx), c.because)
			require.ErrorIs(t, context.Cause(ctx), context.DeadlineExceeded)
		})
	}
}

func TestADeadlineLeavesOutTheTimeInWhichThisProcessStoodStill(t *testing.T) {
	f := newFakeClock()
	looks := 0
	f.look = func() (sample, bool) {
		if looks++; looks == 3 {
			f.t += time.Hour // and QEMU ran on
		} else {
			f.t += clockHeld
		}
		return sample{}, true
	}
	const d = 5 * clockHeld
	ctx, cancel := f.until(t.Context(), moment{}, d, lateError(d))
	defer cancel()
	<-ctx.Done()
	require.EqualError(t, context.Cause(ctx), "not within 5s of the machine's time")
	require.Equal(t, 6, looks, "one a second, and one after the stop that counts little")
}

func TestWhileNobodyWaitsTimeGoesOn(t *testing.T) {
	f := newFakeClock()
	f.step(time.Second, nil, false)
	require.Equal(t, moment{machine: time.Hour, wall: time.Hour}, f.step(time.Hour-time.Second, nil, false))
}
