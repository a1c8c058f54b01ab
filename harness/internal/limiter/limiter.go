// Package limiter bounds how many jobs with machines, such as tests, run at once. The bound depends on the
// host.
//
// A limiter always admits as many jobs as the host has processors, even if they are busy,
// because other processes may keep them busy forever. It admits further jobs while a processor
// idles, for example because the machines wait. Without free memory it admits one job at a time.
// An admitted job never waits for the limiter again, so jobs cannot deadlock on it.
//
// The limiters of several processes need no coordination, because all of them measure the
// same host.
package limiter

import (
	"context"
	"runtime"
	"sync"
	"time"

	"guesthouse.example/internal/sys"
)

// A Limiter bounds how many jobs run at once.
type Limiter struct {
	processors int
	memory     func() (free int64, ok bool)
	idle       func() (processors float64, ok bool) // since the last call

	next     chan struct{} // held by the job that is admitted next
	released chan struct{} // holds a token if a job was released since the last look

	mu   sync.Mutex
	jobs int // admitted and not released
}

const (
	memoryPerJob = 512 << 20              // bytes: two machines of the default size
	idleMin      = 0.5                    // idle processors that admit another job
	idleOver     = 200 * time.Millisecond // the time over which idleness is measured
)

// New returns a limiter. If the host has too little free memory for a job, the limiter calls reclaim, which
// may be nil, and measures the memory again.
func New(reclaim func()) *Limiter {
	idle := new(sys.IdleMeter)
	return &Limiter{
		processors: runtime.GOMAXPROCS(0),
		memory:     func() (int64, bool) { return freeOrReclaim(freeMemory, reclaim) },
		idle:       idle.Read,
		next:       make(chan struct{}, 1),
		released:   make(chan struct{}, 1),
	}
}

func freeMemory() (int64, bool) {
	free, _, ok := sys.Memory()
	return free, ok
}

// freeOrReclaim measures the free memory. If that is too little for a job, it reclaims
// memory and measures again.
func freeOrReclaim(measure func() (int64, bool), reclaim func()) (free int64, ok bool) {
	if free, ok = measure(); ok && free < memoryPerJob && reclaim != nil {
		reclaim()
		free, ok = measure()
	}
	return free, ok
}

// Acquire waits until the host has room for another job. The caller calls Release when the job has ended.
// The error is the cause of ctx.
func (l *Limiter) Acquire(ctx context.Context) error {
	select {
	case l.next <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-l.next }()
	for !l.hasRoom(false) {
		l.idle()
		select {
		case <-l.released:
			continue
		case <-time.After(idleOver):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if n, ok := l.idle(); ok && n >= idleMin && l.hasRoom(true) {
			break
		}
	}
	l.mu.Lock()
	l.jobs++
	l.mu.Unlock()
	return nil
}

// hasRoom reports whether the host has room for another job. The argument idle says that a
// processor idles.
func (l *Limiter) hasRoom(idle bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.jobs == 0 {
		return true
	}
	free, ok := l.memory()
	return (!ok || free >= memoryPerJob) && (idle || l.jobs < l.processors)
}

// Release makes room for another job.
func (l *Limiter) Release() {
	l.mu.Lock()
	l.jobs--
	l.mu.Unlock()
	select {
	case l.released <- struct{}{}:
	default:
	}
}
