package machinetime

import (
	"context"
	"fmt"
	"time"

	"guesthouse.example/harness/internal/guestfault"
)

// WithWatchdog returns a context that ends when the guest hangs: it has printed nothing and was mostly
// idle for d of the machine's time. The watchdog detects this at most 2*d after the last byte. The cause
// then wraps guestfault.ErrGuest and cause. The function printed returns how many bytes the guest has
// printed.
//
// A guest that computes in silence does not hang. Without the kernel's statistics the watchdog never
// ends the context.
func (c *Clock) WithWatchdog(ctx context.Context, d time.Duration, printed func() int64, cause error) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		tick := time.NewTicker(Tick)
		defer tick.Stop()
		from, before := c.Now(), printed()
		for {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
			now, length := c.Now(), printed()
			switch {
			case length != before:
				from, before = now, length
			case now.Machine-from.Machine < d:
			case now.CPU > 0 && now.idleSince(from):
				cancel(fmt.Errorf("%w: it hangs: it printed nothing and was mostly idle for %v: %w", guestfault.ErrGuest, d, cause))
				return
			default:
				from = now
			}
		}
	}()
	return ctx, func() { cancel(context.Canceled) }
}
