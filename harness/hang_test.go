package harness

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestAGuestHangsThatNeitherPrintsNorWorks(t *testing.T) {
	const step, within = clockTick, 20 * clockTick
	for name, c := range map[string]struct {
		works   func(looks int) time.Duration // in one step
		prints  func(looks int) bool
		stepsTo int // until it is found; 0: not in 100
	}{
		"neither":        {works: func(int) time.Duration { return step / 100 }, stepsTo: 20},
		"works":          {works: func(int) time.Duration { return step }},
		"ticks":          {works: func(int) time.Duration { return step * 2 / 5 }, stepsTo: 20},
		"mostly":         {works: func(int) time.Duration { return step * 3 / 5 }},
		"unknown":        {works: func(int) time.Duration { return 0 }},
		"prints":         {works: func(int) time.Duration { return step / 100 }, prints: func(n int) bool { return n%19 == 0 }},
		"prints no more": {works: func(int) time.Duration { return step / 100 }, prints: func(n int) bool { return n == 10 }, stepsTo: 30},
		"works no more":  {works: func(n int) time.Duration { return map[bool]time.Duration{true: step, false: step / 100}[n < 15] }, stepsTo: 40},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFakeClock()
				looks, ran, printed := 0, time.Duration(0), int64(0)
				ctx, stop := context.WithCancel(t.Context())
				f.look = func() (sample, bool) {
					looks++
					f.t += step
					ran += c.works(looks)
					if c.prints != nil && c.prints(looks) {
						printed++
					}
					if looks == 100 {
						stop()
					}
					return sample{ran: waits{1: ran}}, true
				}
				ctx, cancel := f.unlessHanging(ctx, within, func() int64 { return printed }, errors.New("not ready"))
				defer cancel()
				<-ctx.Done()
				if c.stepsTo == 0 {
					require.Equal(t, context.Canceled, context.Cause(ctx))
					return
				}
				require.ErrorIs(t, context.Cause(ctx), ErrGuest)
				require.ErrorContains(t, context.Cause(ctx), "it hangs: for 2s it has printed nothing and has had little to do: not ready")
				require.InDelta(t, c.stepsTo, looks, 2)
			})
		})
	}
}
