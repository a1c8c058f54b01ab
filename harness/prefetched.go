package harness

import (
	"context"
	"runtime"
	"slices"
	"sync"
	"time"

	"guesthouse.example/internal/sys"
)

// prefetched are the machines that wait in this process, or are about to, for who asks
// a cache for one: at most one for each template. The zero value is ready to use.
type prefetched struct {
	room func(mib int) bool    // whether the host's memory carries one more; nil is roomToWait
	idle func(context.Context) // waits for an idle processor; nil is awaitIdle

	mu     sync.Mutex
	all    []*prefetch       // the longest wanted first
	turn   chan struct{}     // holds a token while one is restored
	failed map[string]string // why none can be had, for keys of which none can
}

// A prefetch is one of them.
type prefetch struct {
	key     string
	memory  int // MiB
	restore func(context.Context) (*vm, error)

	ctx    context.Context // ends with it
	cancel context.CancelFunc
	calm   context.Context // until somebody waits for it, it waits for an idle processor
	hurry  context.CancelFunc
	begun  chan struct{} // closed when it is being restored
	done   chan struct{} // closed when it waits or never will
	vm     *vm           // set before done is closed, if it waits
}

// mostWaiting is how many machines wait at most: one of each target where there are two
// processors. They take memory and no processor time.
func mostWaiting() int { return 2 * runtime.GOMAXPROCS(0) }

// roomToWait reports whether the host's memory carries a machine that waits.
func roomToWait(mib int) bool {
	free, total, ok := sys.Memory()
	return ok && enough(free, total, mib)
}

// enough reports whether a quarter of the memory is left, both in bytes, when a machine
// of so many MiB has all of its own.
func enough(free, total int64, mib int) bool { return free-int64(mib)<<20 >= total/4 }

// want has a machine restored, as soon as a processor is idle, for the next who asks
// for one with this key.
func (a *prefetched) want(key string, memory int, restore func(context.Context) (*vm, error)) {
	if !a.hasRoom(memory) {
		a.close() // what waits can be spared first
		return
	}
	f := &prefetch{key: key, memory: memory, restore: restore, begun: make(chan struct{}), done: make(chan struct{})}
	f.ctx, f.cancel = context.WithCancel(context.Background())
	f.calm, f.hurry = context.WithCancel(f.ctx)
	a.mu.Lock()
	if _, failed := a.failed[key]; failed || slices.ContainsFunc(a.all, func(f *prefetch) bool { return f.key == key }) {
		a.mu.Unlock()
		f.cancel()
		return
	}
	if a.turn == nil {
		a.turn = make(chan struct{}, 1)
	}
	a.all = append(a.all, f)
	over := slices.Clone(a.all[:max(0, len(a.all)-mostWaiting())])
	a.all = a.all[len(over):]
	a.mu.Unlock()
	go a.make(f, over)
}

func (a *prefetched) hasRoom(mib int) bool {
	if a.room != nil {
		return a.room(mib)
	}
	return roomToWait(mib)
}

// make makes room and restores a machine, one after the other, so that what runs has the
// other processors.
func (a *prefetched) make(f *prefetch, over []*prefetch) {
	defer close(f.done)
	for _, f := range over {
		f.end()
	}
	select {
	case a.turn <- struct{}{}:
		defer func() { <-a.turn }()
	case <-f.ctx.Done():
		return
	}
	if a.idle != nil {
		a.idle(f.calm)
	} else {
		awaitIdle(f.calm)
	}
	var err error
	if f.ctx.Err() == nil && a.hasRoom(f.memory) {
		close(f.begun)
		f.vm, err = f.restore(f.ctx)
	}
	if f.vm != nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.all = slices.DeleteFunc(a.all, func(other *prefetch) bool { return other == f })
	if err != nil && f.ctx.Err() == nil {
		if a.failed == nil {
			a.failed = make(map[string]string)
		}
		a.failed[f.key] = "it cannot be prefetched: " + oneLine(err)
	}
}

// awaitIdle waits until half a processor has had nothing to do for a tenth of a second,
// so that what runs is not held up, or until ctx ends.
func awaitIdle(ctx context.Context) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	var idle sys.IdleMeter
	idle.Read() // begins
	for {
		select {
		case <-tick.C:
			if processors, ok := idle.Read(); ok && processors >= 0.5 {
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

// take takes the machine that waits for a key, if there is one. That which is just being
// restored is waited for: it is there sooner than another. Of a key of which none can be had
// it says why.
func (a *prefetched) take(ctx context.Context, key string) (v *vm, why string) {
	a.mu.Lock()
	i := slices.IndexFunc(a.all, func(f *prefetch) bool { return f.key == key })
	if i < 0 {
		defer a.mu.Unlock()
		return nil, a.failed[key]
	}
	f := a.all[i]
	a.all = slices.Delete(a.all, i, i+1)
	a.mu.Unlock()
	select {
	case <-f.begun:
	default:
		f.end()
		return nil, ""
	}
	select {
	case <-f.done:
		f.cancel()
		a.mu.Lock()
		defer a.mu.Unlock()
		return f.vm, a.failed[key]
	case <-ctx.Done():
		f.end()
		return nil, ""
	}
}

// end ends it, whether it waits already or not.
func (f *prefetch) end() {
	f.cancel()
	<-f.done
	if f.vm != nil {
		f.vm.discard()
	}
}

// count has what is wanted restored at once and returns how many wait then.
func (a *prefetched) count(ctx context.Context) (n int, err error) {
	a.mu.Lock()
	all := slices.Clone(a.all)
	a.mu.Unlock()
	for _, f := range all {
		f.hurry()
	}
	for _, f := range all {
		select {
		case <-f.done:
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, f := range all {
		if f.vm != nil && slices.Contains(a.all, f) {
			n++
		}
	}
	return n, nil
}

// close ends all of them.
func (a *prefetched) close() {
	a.mu.Lock()
	all := a.all
	a.all = nil
	a.mu.Unlock()
	for _, f := range all {
		f.cancel()
	}
	for _, f := range all {
		f.end()
	}
}
