package machinetime

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"guesthouse.example/harness/internal/guestfault"
)

func TestTheWatchdogFindsAGuestThatNeitherPrintsNorWorks(t *testing.T) {
	const step, within = Tick, 20 * Tick
	for name, c := range map[string]struct {
		works  func(readings int) time.Duration // the processor time of one step
		prints func(readings int) bool
		fires  int // the number of steps until the watchdog ends the context; 0 if it does not within 100
	}{
		"neither":          {works: func(int) time.Duration { return step / 100 }, fires: 20},
		"works":            {works: func(int) time.Duration { return step }},
		"timer interrupts": {works: func(int) time.Duration { return step * 2 / 5 }, fires: 20},
		"works mostly":     {works: func(int) time.Duration { return step * 3 / 5 }},
		"unknown CPU time": {works: func(int) time.Duration { return 0 }},
		"prints":           {works: func(int) time.Duration { return step / 100 }, prints: func(n int) bool { return n%19 == 0 }},
		"stops printing":   {works: func(int) time.Duration { return step / 100 }, prints: func(n int) bool { return n == 10 }, fires: 30},
		"stops working":    {works: func(n int) time.Duration { return map[bool]time.Duration{true: step, false: step / 100}[n < 15] }, fires: 40},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFakeClock()
				readings, ran, printed := 0, time.Duration(0), int64(0)
				ctx, stop := context.WithCancel(t.Context())
				f.sample = func() (Sample, bool) {
					readings++
					f.elapsed += step
					ran += c.works(readings)
					if c.prints != nil && c.prints(readings) {
						printed++
					}
					if readings == 100 {
						stop()
					}
					return Sample{Ran: times{1: ran}}, true
				}
				ctx, cancel := f.WithWatchdog(ctx, within, func() int64 { return printed }, errors.New("not ready"))
				defer cancel()
				<-ctx.Done()
				if c.fires == 0 {
					require.Equal(t, context.Canceled, context.Cause(ctx))
					return
				}
				require.ErrorIs(t, context.Cause(ctx), guestfault.ErrGuest)
				require.ErrorContains(t, context.Cause(ctx), "it hangs: it printed nothing and was mostly idle for 2s: not ready")
				require.InDelta(t, c.fires, readings, 2)
			})
		})
	}
}
