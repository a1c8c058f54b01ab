package harness

import (
	"context"
	"fmt"
	"time"
)

// hangsAfter is which part of ReadyWithin a guest may spend without a word and without work
// before it is taken for one that hangs, which is then found in that time to twice that.
const hangsAfter = 4

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
			case now.ran > 0 && now.idleSince(from):
				cancel(fmt.Errorf("%w: it hangs: for %v it has printed nothing and has had little to do: %w", ErrGuest, within, late))
				return
			default:
				from = now
			}
		}
	}()
	return ctx, func() { cancel(context.Canceled) }
}
