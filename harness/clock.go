package harness

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

const (
	clockTick = 100 * time.Millisecond // between two looks at QEMU while somebody waits
	clockMost = 10                     // times its length is what a deadline takes at most on the wall
)

// A clock tells the machine's own time: the time on the wall, less that in which
// QEMU wanted to run and could not, because its threads waited for a processor or
// were stopped. A deadline in that time fails no test on a loaded host.
type clock struct {
	wall func() time.Duration // since the machine's start
	look func() (sample, bool)

	mu   sync.Mutex
	at   time.Duration         // the wall time of the last look
	lost time.Duration         // up to then
	last map[int]time.Duration // what each thread had waited by then
}

// A sample is what the kernel says of QEMU at one moment.
type sample struct {
	waited  map[int]time.Duration // each thread's time in the queue for a processor, since it began
	stopped bool                  // by a signal
}

// newClock returns the clock of a process that was started at start. Where the
// kernel does not tell how long threads waited, it is the clock on the wall.
func newClock(p *process, start time.Time) *clock {
	return &clock{
		wall: func() time.Duration { return time.Since(start) },
		look: func() (sample, bool) {
			select {
			case <-p.done: // its number may be another's
				return sample{}, false
			default:
				return lookAt(p.cmd.Process.Pid)
			}
		},
	}
}

// lookAt reads what /proc tells of a process; false where it tells nothing.
func lookAt(pid int) (sample, bool) {
	dir := fmt.Sprintf("/proc/%d", pid)
	stat, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return sample{}, false
	}
	// "PID (NAME) STATE …", and NAME may hold anything
	_, state, _ := strings.Cut(string(stat[strings.LastIndexByte(string(stat), ')')+1:]), " ")
	s := sample{waited: make(map[int]time.Duration), stopped: strings.HasPrefix(state, "T")}
	files, _ := filepath.Glob(dir + "/task/*/schedstat")
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // the thread has ended
		}
		var thread int
		var ran, waited time.Duration // in nanoseconds
		fmt.Sscan(filepath.Base(filepath.Dir(file)), &thread)
		if _, err := fmt.Sscan(string(text), &ran, &waited); err == nil {
			s.waited[thread] = waited
		}
	}
	return s, true
}

// now looks at QEMU and returns what time it is.
func (c *clock) now() moment {
	c.mu.Lock()
	defer c.mu.Unlock()
	s, ok := c.look()
	wall := c.wall()
	if ok {
		// Threads wait side by side: that which waited longest held
		// the machine up.
		var held time.Duration
		for thread, waited := range s.waited {
			held = max(held, waited-c.last[thread])
		}
		if s.stopped {
			held = wall - c.at
		}
		c.lost = min(c.lost+held, wall)
		c.last = s.waited
	}
	c.at = wall
	return moment{wall - c.lost, wall}
}

// A moment is one on the machine's clock and on the wall, both since its start;
// the zero value is the start.
type moment struct{ machine, wall time.Duration }

// until returns a context that ends, with the cause late, when d of the machine's
// time has passed since from.
func (c *clock) until(ctx context.Context, from moment, d time.Duration, late error) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		tick := time.NewTicker(clockTick)
		defer tick.Stop()
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
// time in which QEMU could run. What it spends waiting for a processor of a
// loaded host, or stopped by a signal, does not count, but 10 times d on the wall
// is the most. context.Cause tells of a wait that took too long, with an error that
// wraps context.DeadlineExceeded. The cancel function must be called, as always.
func (m *Machine) Within(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	return m.clock.until(ctx, m.clock.now(), d, lateError(d))
}

// A lateError is the cause of a context's end after that time of the machine's.
type lateError time.Duration

func (e lateError) Error() string {
	return fmt.Sprintf("not within %v of the machine's time", time.Duration(e))
}

func (e lateError) Unwrap() error { return context.DeadlineExceeded }
