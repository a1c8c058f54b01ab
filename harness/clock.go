package harness

import (
	"context"
	"fmt"
	"sync"
	"time"

	"guesthouse.example/harness/internal/qemu"
	"guesthouse.example/internal/sys"
)

const (
	clockTick = 100 * time.Millisecond // between two looks at QEMU while somebody waits
	clockMost = 10                     // times its length is what a deadline takes at most on the wall
	clockHeld = 10 * clockTick         // between two looks says that we stood still ourselves
)

// A clock tells the machine's own time: the time on the wall, less that in which
// QEMU wanted to run and could not, because its threads waited for a processor or
// were stopped, or the host, a virtual machine itself, did not get its processors. A
// deadline in that time fails no test on a loaded host.
//
// Time in which this process stood still, as by Ctrl-Z, is on neither clock: QEMU has
// a process group of its own and may have run, but nobody drained its console.
type clock struct {
	wall func() time.Duration // since the machine's start
	look func() (sample, bool)

	mu   sync.Mutex
	at   time.Duration // the wall time of the last look
	lost time.Duration // up to then
	ran  time.Duration // likewise: the processor time of QEMU's threads
	last sample

	waiting int           // deadlines that run: as long as there are some, every clockTick somebody looks
	stood   time.Duration // how long this process stood still meanwhile
}

// A sample is what the kernel says of QEMU at one moment.
type sample struct {
	waited  map[int]time.Duration // each thread's time in the queue for a processor, since it began
	ran     map[int]time.Duration // each thread's time on a processor, likewise
	stolen  map[int]time.Duration // each processor's time that went to other virtual machines
	stopped bool                  // by a signal
	runs    bool                  // or would, if it had a processor: some thread of it
}

// newClock returns the clock of a process that was started at start. Where the
// kernel does not tell how long threads waited, it is the clock on the wall.
func newClock(p *qemu.Process, start time.Time) *clock {
	return &clock{
		wall: func() time.Duration { return time.Since(start) },
		last: sample{stolen: sys.StolenTime()}, // since the host's boot
		look: func() (sample, bool) {
			select {
			case <-p.Done: // its number may be another's
				return sample{}, false
			default:
				return lookAt(p.PID())
			}
		},
	}
}

// lookAt reads what /proc tells of a process; false where it tells nothing.
func lookAt(pid int) (sample, bool) {
	p, ok := sys.LookupProcess(pid)
	if !ok {
		return sample{}, false
	}
	s := sample{waited: make(map[int]time.Duration), ran: make(map[int]time.Duration), stolen: sys.StolenTime(), stopped: p.State == 'T'}
	for _, t := range sys.Threads(pid) {
		s.waited[t.ID], s.ran[t.ID] = t.Waited, t.Ran
		s.runs = s.runs || t.State == 'R'
	}
	return s, true
}

// most returns the longest time by which something has grown.
func most(now, before map[int]time.Duration) (most time.Duration) {
	for i, d := range now {
		most = max(most, d-before[i])
	}
	return most
}

// now looks at QEMU and returns what time it is.
func (c *clock) now() moment {
	c.mu.Lock()
	defer c.mu.Unlock()
	s, ok := c.look()
	wall := c.wall() - c.stood
	stood := wall - c.at - clockTick
	if c.waiting == 0 || stood < clockHeld {
		stood = 0
	}
	wall -= stood
	c.stood += stood
	if ok {
		// Threads wait side by side, and so do processors: that which
		// waited longest held the machine up.
		held := max(0, most(s.waited, c.last.waited)+most(s.stolen, c.last.stolen)-stood)
		if s.stopped {
			held = wall - c.at
		}
		c.lost = min(c.lost+held, wall)
		for thread, ran := range s.ran {
			c.ran += max(0, ran-c.last.ran[thread])
		}
		c.last = s
	}
	c.at = wall
	return moment{machine: wall - c.lost, wall: wall, ran: c.ran, runs: s.runs}
}

// wait says that somebody begins (1) to look every clockTick, or ends (-1).
func (c *clock) wait(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waiting += n
}

// A moment is one on the machine's clock and on the wall, with the processor time of QEMU
// up to then, all since its start; the zero value is the start. A kernel that does not tell
// the processor time leaves it at 0.
type moment struct {
	machine, wall, ran time.Duration
	runs               bool // a thread of QEMU, or waits for a processor, which machine does not yet leave out
}

// until returns a context that ends, with the cause late, when d of the machine's
// time has passed since from.
func (c *clock) until(ctx context.Context, from moment, d time.Duration, late error) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		tick := time.NewTicker(clockTick)
		defer tick.Stop()
		c.now()
		c.wait(1)
		defer c.wait(-1)
		for {
			now := c.now()
			took := now.wall - from.wall
			if now.machine-from.machine >= d || took >= clockMost*d {
				if took > d+d/10+clockTick {
					late = fmt.Errorf("%w (%v on this loaded host)", late, took.Round(time.Second/10))
				}
				cancel(late)
				return
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	}()
	return ctx, func() { cancel(context.Canceled) }
}

// Within returns a context for a wait of at most d of the machine's time: the
// time in which QEMU could run. What it spends waiting for a processor of a loaded
// host (or of its host), or stopped by a signal, does not count, but 10 times d on the wall
// is the most. Time in which this process itself was stopped never counts. context.Cause
// tells of a wait that took too long, with an error that wraps context.DeadlineExceeded.
// The cancel function must be called, as always.
func (m *Machine) Within(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	return m.clock.until(ctx, m.clock.now(), d, lateError(d))
}

// A lateError is the cause of a context's end after that time of the machine's.
type lateError time.Duration

func (e lateError) Error() string {
	return fmt.Sprintf("not within %v of the machine's time", time.Duration(e))
}

func (e lateError) Unwrap() error { return context.DeadlineExceeded }
