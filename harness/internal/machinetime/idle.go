package machinetime

import (
	"context"
	"time"
)

// A guest counts as idle if QEMU's threads use less of the machine's time than idleBelow, and idleMore
// for each further processor of the guest, but at most idleAtMost. QEMU's threads
// need about 1 % of a processor for a guest that sleeps. The 250 timer interrupts a second of a
// kernel that always ticks (x86) raise that to 3 to 6 %, and to over 10 % on a slow host, for each of the
// guest's processors. A guest that boots needs all of a processor, and the scheduler of the guest may
// move that work from one of its processors to another.
const (
	idleBelow  = 0.5
	idleMore   = 0.1
	idleAtMost = 0.9
)

// idleSince reports whether the guest was mostly idle since an earlier moment. It is true without the
// kernel's statistics.
func (m Moment) idleSince(from Moment) bool {
	limit := min(idleBelow+idleMore*float64(max(1, m.cpus)-1), idleAtMost)
	return float64(m.CPU-from.CPU) < limit*float64(m.Machine-from.Machine)
}

// In the machine's time.
const (
	idleFor    = 20 * time.Millisecond // a guest that was idle for so long has finished its work
	idleWithin = time.Second           // the longest wait of WaitIdle
)

// WaitIdle waits until the guest has finished its work, but at most for one second of the
// machine's time or ten seconds on the wall clock. Only the end of ctx is an error.
func (c *Clock) WaitIdle(ctx context.Context) error {
	tick := time.NewTicker(idleFor)
	defer tick.Stop()
	begin := c.Now()
	for from := begin; from.Machine-begin.Machine < idleWithin && from.Wall-begin.Wall < wallFactor*idleWithin; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		now := c.Now()
		if !now.Runnable && now.Machine-from.Machine >= idleFor/2 && now.idleSince(from) {
			return nil
		}
		from = now
	}
	return nil
}
