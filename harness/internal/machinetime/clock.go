package machinetime

import (
	"sync"
	"time"

	"guesthouse.example/internal/sys"
)

const (
	// Tick is how often a running deadline reads the clock.
	Tick = 100 * time.Millisecond

	// suspendedAfter is the shortest gap between two such readings that counts as a suspension of
	// this process and not as a late reading.
	suspendedAfter = 10 * Tick
)

// A Clock is the clock of one machine. Its methods may be called from any goroutine.
type Clock struct {
	wall   func() time.Duration // since the machine's start
	sample func() (Sample, bool)
	cpus   int // the guest's processors

	mu        sync.Mutex
	last      Sample
	at        time.Duration // the wall time of the last sample
	lost      time.Duration // the wall time up to then that is not the machine's
	cpu       time.Duration // the processor time of QEMU's threads up to then
	suspended time.Duration // how long this process was suspended up to then
	deadlines int           // the number of running deadlines; each reads the clock every Tick
}

// A Sample holds the kernel's statistics of a QEMU process at one moment.
type Sample struct {
	Waited   map[int]time.Duration // by thread: in the queue for a processor, since the thread's start
	Ran      map[int]time.Duration // by thread: on a processor, since the thread's start
	Stolen   map[int]time.Duration // by processor: running other virtual machines, since the host's boot
	Stopped  bool                  // a signal has stopped the process
	Runnable bool                  // a thread runs or is queued for a processor
}

// New returns the clock of a QEMU process that was started at start and emulates a number of processors. The channel exited is closed
// when the process has been reaped, because its PID may then belong to another process.
func New(pid, cpus int, exited <-chan struct{}, start time.Time) *Clock {
	return &Clock{
		cpus: cpus,
		wall: func() time.Duration { return time.Since(start) },
		last: Sample{Stolen: sys.StolenTime()}, // steal time from before the machine's start does not count
		sample: func() (Sample, bool) {
			select {
			case <-exited:
				return Sample{}, false
			default:
				return sampleProcess(pid)
			}
		},
	}
}

// NewFake returns the clock of a QEMU process that a test makes up. The clock calls sample for each
// reading, and its wall clock is that of package time, which package synctest replaces.
func NewFake(sample func() Sample) *Clock {
	start := time.Now()
	return &Clock{
		wall:   func() time.Duration { return time.Since(start) },
		sample: func() (Sample, bool) { return sample(), true },
	}
}

// sampleProcess returns the statistics of a process, or false if there is no such process.
func sampleProcess(pid int) (Sample, bool) {
	p, ok := sys.LookupProcess(pid)
	if !ok {
		return Sample{}, false
	}
	s := Sample{
		Waited:  make(map[int]time.Duration),
		Ran:     make(map[int]time.Duration),
		Stolen:  sys.StolenTime(),
		Stopped: p.State == 'T',
	}
	for _, t := range sys.Threads(pid) {
		s.Waited[t.ID], s.Ran[t.ID] = t.Waited, t.Ran
		s.Runnable = s.Runnable || t.State == 'R'
	}
	return s, true
}

// A Moment is a reading of a Clock. Its times count from the machine's start, which is the zero
// Moment.
type Moment struct {
	Machine  time.Duration // the machine's time
	Wall     time.Duration // the wall clock, without the time in which this process was suspended
	CPU      time.Duration // the processor time of QEMU's threads; 0 without the kernel's statistics
	Runnable bool          // QEMU runs or waits for a processor; Machine still contains the time of the current wait

	cpus int // the guest's processors
}

// Now reads the clock.
func (c *Clock) Now() Moment {
	c.mu.Lock()
	defer c.mu.Unlock()
	s, ok := c.sample()
	wall := c.wall() - c.suspended
	// Only a running deadline promises to read the clock every Tick.
	gap := wall - c.at - Tick
	if c.deadlines == 0 || gap < suspendedAfter {
		gap = 0
	}
	wall -= gap
	c.suspended += gap
	if ok {
		lost := max(0, longest(s.Waited, c.last.Waited)+longest(s.Stolen, c.last.Stolen)-gap)
		if s.Stopped {
			lost = wall - c.at
		}
		c.lost = min(c.lost+lost, wall)
		for thread, ran := range s.Ran {
			c.cpu += max(0, ran-c.last.Ran[thread])
		}
		c.last = s
	}
	c.at = wall
	return Moment{Machine: wall - c.lost, Wall: wall, CPU: c.cpu, Runnable: s.Runnable, cpus: c.cpus}
}

// longest returns the greatest increase among the times.
func longest(now, before map[int]time.Duration) (d time.Duration) {
	for i, t := range now {
		d = max(d, t-before[i])
	}
	return d
}
