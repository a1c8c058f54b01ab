package harness

import (
	"context"
	"fmt"
	"time"
)

// hangsAfter is which part of ReadyWithin a guest may spend without a word and without work
// before it is taken for one that hangs, which is then found in that time to twice that.
const hangsAfter = 4

// idleBelow is the share of its time below which a guest does no work. Of one that waits for
// ever QEMU's threads run for about 1 %, and for what 250 ticks a second cost where the kernel
// ticks always (x86): mostly 3 to 6 %, and on a slow host over 10. One that boots works all the time.
const idleBelow = 0.5

// unlessHanging returns a context that ends when the guest hangs: when for so long it has
// printed nothing and has had little to do. A guest that works in silence is not found so.
// Nor is one of which the kernel does not say how long it ran.
func (c *clock) unlessHanging(ctx context.Context, within time.Duration, said func() int64, late error) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		tick := time.NewTicker(clockTick)
		defer tick.Stop()
		from, before := c.now(), said()
		for {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
			now, length := c.now(), said()
			took := now.machine - from.machine
			switch {
			case length != before:
				from, before = now, length
			case took < within:
			case now.ran > 0 && float64(now.ran-from.ran) < idleBelow*float64(took):
				cancel(fmt.Errorf("%w: it hangs: for %v it has printed nothing and has had little to do: %w", ErrGuest, within, late))
				return
			default:
				from = now
			}
		}
	}()
	return ctx, func() { cancel(context.Canceled) }
}
