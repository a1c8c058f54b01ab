package harnesstest

import (
	"runtime"
	"sync"
	"time"

	"guesthouse.example/internal/sys"
)

// A limiter bounds how many tests run machines at once. The bound depends on the host.
//
// The limiter always admits as many tests as the host has processors, even if they are busy,
// because other processes may keep them busy forever. It admits further tests while a processor
// idles, for example because the machines wait. Without free memory it admits one test at a time.
// An admitted test never waits for the limiter again, so tests cannot deadlock on it.
//
// The limiters of several test binaries need no coordination, because all of them measure the
// same host.
type limiter struct {
	processors int
	memory     func() (free int64, ok bool)
	idle       func() (processors float64, ok bool) // since the last call

	next     chan struct{} // held by the test that is admitted next
	released chan struct{} // holds a token if a test was released since the last look

	mu    sync.Mutex
	tests int // admitted and not released
}

const (
	memoryPerTest = 512 << 20              // bytes: two machines of the default size
	idleMin       = 0.5                    // idle processors that admit another test
	idleOver      = 200 * time.Millisecond // the time over which idleness is measured
)

func newLimiter() *limiter {
	idle := new(sys.IdleMeter)
	return &limiter{
		processors: runtime.GOMAXPROCS(0),
		memory:     func() (int64, bool) { return freeOrReclaim(freeMemory, EndPrefetched) },
		idle:       idle.Read,
		next:       make(chan struct{}, 1),
		released:   make(chan struct{}, 1),
	}
}

func freeMemory() (int64, bool) {
	free, _, ok := sys.Memory()
	return free, ok
}

// freeOrReclaim measures the free memory. If that is too little for a test, it reclaims
// memory and measures again.
func freeOrReclaim(measure func() (int64, bool), reclaim func()) (free int64, ok bool) {
	if free, ok = measure(); ok && free < memoryPerTest {
		reclaim()
		free, ok = measure()
	}
	return free, ok
}

// acquire waits until the host has room for another test.
func (l *limiter) acquire() {
	l.next <- struct{}{}
	defer func() { <-l.next }()
	for !l.hasRoom(false) {
		l.idle()
		select {
		case <-l.released:
			continue
		case <-time.After(idleOver):
		}
		if n, ok := l.idle(); ok && n >= idleMin && l.hasRoom(true) {
			break
		}
	}
	l.mu.Lock()
	l.tests++
	l.mu.Unlock()
}

// hasRoom reports whether the host has room for another test. The argument idle says that a
// processor idles.
func (l *limiter) hasRoom(idle bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.tests == 0 {
		return true
	}
	free, ok := l.memory()
	return (!ok || free >= memoryPerTest) && (idle || l.tests < l.processors)
}

func (l *limiter) release() {
	l.mu.Lock()
	l.tests--
	l.mu.Unlock()
	select {
	case l.released <- struct{}{}:
	default:
	}
}
