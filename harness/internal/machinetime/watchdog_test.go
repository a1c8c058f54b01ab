package machinetime

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"guesthouse.example/harness/internal/guestfault"
)

func TestTheWatchdogFindsAGuestThatNeitherPrintsNorWorks(t *testing.T) {
	const step, within = Tick, 20 * Tick
	busy := func(int) time.Duration { return step }
	for name, c := range map[string]struct {
		works     func(readings int) time.Duration // the processor time of one step
		prints    func(readings int) bool
		registers func(readings int) string
		fires     int // the number of steps until the watchdog ends the context; 0 if it does not within 100
		says      string
	}{
		"neither":               {works: func(int) time.Duration { return step / 100 }, fires: 20},
		"works":                 {works: func(int) time.Duration { return step }},
		"timer interrupts":      {works: func(int) time.Duration { return step * 2 / 5 }, fires: 20},
		"works mostly":          {works: func(int) time.Duration { return step * 3 / 5 }},
		"unknown CPU time":      {works: func(int) time.Duration { return 0 }},
		"prints":                {works: func(int) time.Duration { return step / 100 }, prints: func(n int) bool { return n%19 == 0 }},
		"stops printing":        {works: func(int) time.Duration { return step / 100 }, prints: func(n int) bool { return n == 10 }, fires: 30},
		"spins":                 {works: busy, registers: func(int) string { return "pc=1" }, fires: 20, says: "spun, its registers repeating,"},
		"polls":                 {works: busy, registers: func(n int) string { return fmt.Sprintf("pc=%d", n%3) }, fires: 20, says: "spun, its registers repeating,"},
		"spins with interrupts": {works: busy, registers: func(n int) string { return fmt.Sprintf("pc=%d", max(0, n%6-4)*n) }, fires: 20, says: "spun, its registers repeating,"},
		"computes":              {works: busy, registers: func(n int) string { return fmt.Sprintf("pc=1 r0=%d", n) }},
		"works after a spin":    {works: busy, registers: func(n int) string { return fmt.Sprintf("pc=1 r0=%d", max(n, 8)) }, prints: func(n int) bool { return n == 10 }},
		"unknown registers":     {works: busy, registers: func(int) string { return "" }},
		"spins and prints":      {works: busy, registers: func(int) string { return "pc=1" }, prints: func(n int) bool { return n%19 == 0 }},
		"stops working":         {works: func(n int) time.Duration { return map[bool]time.Duration{true: step, false: step / 100}[n < 15] }, fires: 40},
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
				signs := Signs{Printed: func() int64 { return printed }}
				if c.registers != nil {
					signs.Registers = func(context.Context) string { return c.registers(readings) }
				}
				ctx, cancel := f.WithWatchdog(ctx, within, signs, errors.New("not ready"))
				defer cancel()
				<-ctx.Done()
				if c.fires == 0 {
					require.Equal(t, context.Canceled, context.Cause(ctx))
					return
				}
				require.ErrorIs(t, context.Cause(ctx), guestfault.ErrGuest)
				require.ErrorContains(t, context.Cause(ctx), "it hangs: it printed nothing and "+cmp.Or(c.says, "was mostly idle")+" for 2s: not ready")
				require.InDelta(t, c.fires, readings, 2)
			})
		})
	}
}
