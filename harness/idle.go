package harness

import (
	"context"
	"time"
)

// idleBelow is the share of its time below which a guest does no work. Of one that waits for
// ever QEMU's threads run for about 1 %, and for what 250 ticks a second cost where the kernel
// ticks always (x86): mostly 3 to 6 %, and on a slow host over 10. One that boots works all the time.
const idleBelow = 0.5

// idleSince says whether the guest has done no work since a moment.
func (m moment) idleSince(from moment) bool {
	return float64(m.ran-from.ran) < idleBelow*float64(m.machine-from.machine)
}

const (
	idleFor    = 50 * time.Millisecond // without work is idle
	idleWithin = time.Second           // is waited for; both are the machine's time
)

// untilIdle waits until the guest has done no work for a while, or has worked for all of
// idleWithin. Its error is the end of ctx.
func (c *clock) untilIdle(ctx context.Context) error {
	tick := time.NewTicker(idleFor)
	defer tick.Stop()
	begin := c.now()
	for from := begin; from.machine-begin.machine < idleWithin; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		now := c.now()
		if now.machine-from.machine >= idleFor/2 && now.idleSince(from) {
			return nil
		}
		from = now
	}
	return nil
}
