package share

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"sync/atomic"
)

// A process that starts, from a program or in a directory of a share, needs answers that this process carries.
// During a fork, the thread keeps its P, the processor of Go's scheduler, until the new process has its
// program, and the garbage collector cannot stop it. A machine with one CPU has only one P. So, once a share is
// served, there is a second P for the goroutines that carry the answers, and Go's runtime collects no garbage by
// itself: the collector would stop those goroutines and wait for the first P. Collect does it instead, and never
// during a fork.
var (
	held sync.Once
	due  = make(chan struct{}, 1) // gets a token when garbage is to be collected

	world sync.Mutex // held during a fork, and during a collection
)

// holdWorld takes the collection of garbage over.
func holdWorld() {
	held.Do(func() {
		world.Lock()
		defer world.Unlock()
		if runtime.GOMAXPROCS(0) < 2 {
			runtime.GOMAXPROCS(2)
		}
		debug.SetGCPercent(-1)
		collected.Store(allocated())
		go func() {
			for range due {
				world.Lock()
				runtime.GC()
				world.Unlock()
				collected.Store(allocated())
			}
		}()
	})
}

// Fork calls a function that starts a process.
func Fork(start func() (pid int, err error)) (pid int, err error) {
	world.Lock()
	defer world.Unlock()
	return start()
}

var (
	calls     atomic.Uint64 // of Collect
	collected atomic.Uint64 // allocated at the last collection; 0 while Go's runtime collects
)

const (
	every = 64      // how many calls of Collect look at the heap once
	grown = 4 << 20 // bytes that are allocated between two collections
)

// Collect lets garbage be collected if there is much of it. Every goroutine that works without end calls it
// often.
func Collect() {
	if calls.Add(1)%every != 0 {
		return
	}
	if last := collected.Load(); last > 0 && allocated()-last > grown {
		select {
		case due <- struct{}{}:
		default: // a collection is due already
		}
	}
}

// allocated returns how many bytes were allocated in the heap since the process began.
func allocated() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}
