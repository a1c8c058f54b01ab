package harnesstest

import (
	"runtime"
	"sync"
	"time"

	"guesthouse.example/internal/capacity"
)

// A gate lets as many tests run their machines at once as the host carries. As many as it
// has processors go in whatever is measured, for other processes may keep it busy for
// ever. Another one goes in when a processor idles, as it does where machines wait, and
// when there is memory left. Whoever is in never waits here again, so nobody waits for a
// test that waits.
//
// Several processes need not know of each other: what they measure is the same host.
type gate struct {
	processors int
	memory     func() (free int64, ok bool)
	idle       func() (processors float64, ok bool) // since it was asked last

	next chan struct{} // held by the test that goes in next
	left chan struct{} // holds a token when somebody has gone since it was looked at

	mu     sync.Mutex
	inside int
}

const (
	memoryEach = 512 << 20              // bytes that are free for a test's machines: two of the default's size
	idleEach   = 0.5                    // processors that idle
	idleOver   = 200 * time.Millisecond // and over which time
)

func newGate() *gate {
	idle := new(capacity.Idle)
	return &gate{
		processors: runtime.GOMAXPROCS(0),
		memory:     func() (int64, bool) { return spare(freeMemory, EndPrefetched) },
		idle:       idle.Look,
		next:       make(chan struct{}, 1),
		left:       make(chan struct{}, 1),
	}
}

func freeMemory() (int64, bool) {
	free, _, ok := capacity.Memory()
	return free, ok
}

// spare looks how much memory is free, and again without what can be spared where that
// is too little.
func spare(look func() (int64, bool), end func()) (free int64, ok bool) {
	if free, ok = look(); ok && free < memoryEach {
		end()
		free, ok = look()
	}
	return free, ok
}

// enter waits until the host carries another test.
func (g *gate) enter() {
	g.next <- struct{}{}
	defer func() { <-g.next }()
	for !g.carries(false) {
		g.idle()
		select {
		case <-g.left:
			continue
		case <-time.After(idleOver):
		}
		if n, ok := g.idle(); ok && n >= idleEach && g.carries(true) {
			break
		}
	}
	g.mu.Lock()
	g.inside++
	g.mu.Unlock()
}

// carries says whether there is room for another one: in memory, and where no processor
// idles among as many tests as there are processors.
func (g *gate) carries(idle bool) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.inside == 0 {
		return true
	}
	free, ok := g.memory()
	return (!ok || free >= memoryEach) && (idle || g.inside < g.processors)
}

func (g *gate) leave() {
	g.mu.Lock()
	g.inside--
	g.mu.Unlock()
	select {
	case g.left <- struct{}{}:
	default:
	}
}
