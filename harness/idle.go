package harness

import (
	"context"
	"time"
)

// idleBelow is the share of its time below which a guest has little to do. Of one that waits for
// ever QEMU's threads run for about 1 %, and for what 250 ticks a second cost where the kernel
// ticks always (x86): mostly 3 to 6 %, and on a slow host over 10. One that boots works all the time.
const idleBelow = 0.5

// idleSince says whether the guest has had little to do since a moment, also where the kernel does
// not tell how long QEMU ran.
func (m moment) idleSince(from moment) bool {
	return float64(m.ran-from.ran) < idleBelow*float64(m.machine-from.machine)
}

const (
	idleFor    = 50 * time.Millisecond // with little to do is idle
	idleWithin = time.Second           // is waited for; both are the machine's time
)

// untilIdle waits until the guest has had little to do for a while, or has worked for all of
// idleWithin, or ten times that on the wall. Its error is the end of ctx.
func (c *clock) untilIdle(ctx context.Context) error {
	tick := time.NewTicker(idleFor)
	defer tick.Stop()
	begin := c.now()
	for from := begin; from.machine-begin.machine < idleWithin && from.wall-begin.wall < clockMost*idleWithin; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		now := c.now()
		if !now.runs && now.machine-from.machine >= idleFor/2 && now.idleSince(from) {
			return nil
		}
		from = now
	}
	return nil
}
