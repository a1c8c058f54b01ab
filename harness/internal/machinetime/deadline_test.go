package machinetime

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestADeadlineIsInMachineTime(t *testing.T) {
	for name, c := range map[string]struct {
		elapsed time.Duration
		process Sample
		d       time.Duration
		cause   string // empty: the context does not end
	}{
		"idle host":   {30 * time.Second, Sample{}, 30 * time.Second, "not within 30s of the machine's time"},
		"busy host":   {82 * time.Second, Sample{Waited: times{1: 52 * time.Second}}, 30 * time.Second, "not within 30s of the machine's time (1m22s on this loaded host)"},
		"not yet":     {82 * time.Second, Sample{Waited: times{1: 53 * time.Second}}, 30 * time.Second, ""},
		"on the wall": {300 * time.Second, Sample{Waited: times{1: 300 * time.Second}}, 30 * time.Second, "not within 30s of the machine's time (5m0s on this loaded host)"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFakeClock()
			f.elapsed, f.process = c.elapsed, c.process
			ctx, cancel := f.WithDeadline(t.Context(), Moment{}, c.d, timeoutError(c.d))
			defer cancel()
			if c.cause == "" {
				select {
				case <-ctx.Done():
					t.Fatal(context.Cause(ctx))
				case <-time.After(5 * Tick):
				}
				return
			}
			<-ctx.Done()
			require.EqualError(t, context.Cause(ctx), c.cause)
			require.ErrorIs(t, context.Cause(ctx), context.DeadlineExceeded)
		})
	}
}

func TestADeadlineExcludesTheTimeInWhichThisProcessWasSuspended(t *testing.T) {
	f := newFakeClock()
	readings := 0
	f.sample = func() (Sample, bool) {
		if readings++; readings == 3 {
			f.elapsed += time.Hour // QEMU has run meanwhile
		} else {
			f.elapsed += suspendedAfter
		}
		return Sample{}, true
	}
	const d = 5 * suspendedAfter
	ctx, cancel := f.WithDeadline(t.Context(), Moment{}, d, timeoutError(d))
	defer cancel()
	<-ctx.Done()
	require.EqualError(t, context.Cause(ctx), "not within 5s of the machine's time")
	require.Equal(t, 6, readings, "one reading a second, and one after the suspension, which counts as a tick")
}

func TestAGapWithoutADeadlineIsNoSuspension(t *testing.T) {
	f := newFakeClock()
	f.step(time.Second, nil, false)
	require.Equal(t, Moment{Machine: time.Hour, Wall: time.Hour}, f.step(time.Hour-time.Second, nil, false))
}
