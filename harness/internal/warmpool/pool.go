// Package warmpool restores machines before they are needed and keeps them for a template cache: at most
// one machine for each key, and as many as the host's processors and memory allow. It does not know what
// a machine is: the caller restores it.
package warmpool

import (
	"context"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"guesthouse.example/internal/sys"
)

// A Machine is what a pool keeps.
type Machine interface {
	comparable
	Discard() // ends a machine that was not taken
}

// A Pool restores machines in the background and keeps them until they are taken. The zero value is
// ready to use.
type Pool[M Machine] struct {
	room func(mib int) bool    // reports whether the host has memory for another machine; nil is hasMemory
	idle func(context.Context) // waits for an idle processor; nil is awaitIdle

	mu      sync.Mutex
	entries []*entry[M]       // the oldest first
	limiter chan struct{}     // holds a token while a machine is restored
	failed  map[string]string // keys whose machines cannot be restored, and why
}

// An entry is a machine in the pool, or one that is about to be restored.
type entry[M Machine] struct {
	key     string
	memory  int // MiB
	urgent  bool
	restore func(context.Context) (M, error)

	ctx     context.Context // ends when the machine is taken or dropped
	cancel  context.CancelFunc
	waiting context.Context // ends when the entry need not wait for an idle processor
	hurry   context.CancelFunc
	begun   chan struct{} // closed when the restore begins
	done    chan struct{} // closed when the machine is in the pool, or never will be
	machine M             // set before done is closed; the zero value if there is none
}

// limit returns the most machines that a pool keeps: one for each of four targets on a host with two
// processors. A machine in the pool takes memory and no processor time.
func limit() int { return 2 * runtime.GOMAXPROCS(0) }

// hasMemory reports whether the host has memory for another machine.
func hasMemory(mib int) bool {
	free, total, ok := sys.Memory()
	return ok && isEnough(free, total, mib)
}

// isEnough reports whether a quarter of the host's memory stays free when a machine uses all of its mib
// MiB. free and total are in bytes.
func isEnough(free, total int64, mib int) bool { return free-int64(mib)<<20 >= total/4 }

// Add makes the pool call restore for the machine of a key as soon as a processor is idle. memory is the
// machine's memory in MiB. Add does nothing if the pool has the key already, or if an earlier restore for
// the key has failed. If the host is short of memory, Add empties the pool instead.
func (p *Pool[M]) Add(key string, memory int, restore func(context.Context) (M, error)) {
	p.add(&entry[M]{key: key, memory: memory, restore: restore})
}

// AddNow is like Add, but the pool calls restore at once: the caller is about to take the machine.
func (p *Pool[M]) AddNow(key string, memory int, restore func(context.Context) (M, error)) {
	p.add(&entry[M]{key: key, memory: memory, restore: restore, urgent: true})
}

func (p *Pool[M]) add(e *entry[M]) {
	key, memory := e.key, e.memory
	if !p.hasRoom(memory) {
		p.Close()
		return
	}
	e.begun, e.done = make(chan struct{}), make(chan struct{})
	e.ctx, e.cancel = context.WithCancel(context.Background())
	e.waiting, e.hurry = context.WithCancel(e.ctx)
	p.mu.Lock()
	if _, failed := p.failed[key]; failed || slices.ContainsFunc(p.entries, func(e *entry[M]) bool { return e.key == key }) {
		p.mu.Unlock()
		e.cancel()
		return
	}
	if p.limiter == nil {
		p.limiter = make(chan struct{}, 1)
	}
	p.entries = append(p.entries, e)
	over := slices.Clone(p.entries[:max(0, len(p.entries)-limit())])
	p.entries = p.entries[len(over):]
	p.mu.Unlock()
	go p.fill(e, over)
}

func (p *Pool[M]) hasRoom(mib int) bool {
	if p.room != nil {
		return p.room(mib)
	}
	return hasMemory(mib)
}

// fill ends the entries that are over the limit and restores the machine of an entry. The limiter lets
// one fill restore at a time, so that running machines have the other processors. An urgent fill does not
// wait for it.
func (p *Pool[M]) fill(e *entry[M], over []*entry[M]) {
	defer close(e.done)
	for _, e := range over {
		e.end()
	}
	if !e.urgent {
		if !p.awaitTurn(e) {
			return
		}
		defer func() { <-p.limiter }()
	}
	var none M
	var err error
	if e.ctx.Err() == nil && p.hasRoom(e.memory) {
		close(e.begun)
		e.machine, err = e.restore(e.ctx)
	}
	if e.machine != none {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.entries = slices.DeleteFunc(p.entries, func(other *entry[M]) bool { return other == e })
	if err != nil && e.ctx.Err() == nil {
		if p.failed == nil {
			p.failed = make(map[string]string)
		}
		p.failed[e.key] = "it cannot be prefetched: " + strings.Join(strings.Fields(err.Error()), " ")
	}
}

// awaitTurn waits until no other machine is being restored and a processor is idle. It reports whether the
// caller has the limiter.
func (p *Pool[M]) awaitTurn(e *entry[M]) bool {
	select {
	case p.limiter <- struct{}{}:
	case <-e.ctx.Done():
		return false
	}
	if p.idle != nil {
		p.idle(e.waiting)
	} else {
		awaitIdle(e.waiting)
	}
	return true
}

// awaitIdle waits until half a processor has been idle for a tenth of a second, or until ctx ends.
func awaitIdle(ctx context.Context) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	var idle sys.IdleMeter
	idle.Read() // the first reading is the start of the measurement
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

// Take takes the machine of a key out of the pool. If the restore of the machine has begun, Take waits
// for it, because a new restore would take longer. If there is no machine, Take returns the zero value,
// and the reason if the restore has failed.
func (p *Pool[M]) Take(ctx context.Context, key string) (m M, why string) {
	p.mu.Lock()
	i := slices.IndexFunc(p.entries, func(e *entry[M]) bool { return e.key == key })
	if i < 0 {
		defer p.mu.Unlock()
		return m, p.failed[key]
	}
	e := p.entries[i]
	p.entries = slices.Delete(p.entries, i, i+1)
	p.mu.Unlock()
	select {
	case <-e.begun:
	default:
		e.end()
		return m, ""
	}
	select {
	case <-e.done:
		e.cancel()
		p.mu.Lock()
		defer p.mu.Unlock()
		return e.machine, p.failed[key]
	case <-ctx.Done():
		e.end()
		return m, ""
	}
}

// end ends an entry, whether or not its machine has been restored.
func (e *entry[M]) end() {
	e.cancel()
	<-e.done
	var none M
	if e.machine != none {
		e.machine.Discard()
	}
}

// Fill restores the machines of all entries without waiting for an idle processor, and returns how many
// machines are in the pool then. Its error is the end of ctx.
func (p *Pool[M]) Fill(ctx context.Context) (n int, err error) {
	p.mu.Lock()
	all := slices.Clone(p.entries)
	p.mu.Unlock()
	for _, e := range all {
		e.hurry()
	}
	for _, e := range all {
		select {
		case <-e.done:
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	var none M
	for _, e := range all {
		if e.machine != none && slices.Contains(p.entries, e) {
			n++
		}
	}
	return n, nil
}

// Close ends the machines in the pool. The pool may be used again.
func (p *Pool[M]) Close() {
	p.mu.Lock()
	all := p.entries
	p.entries = nil
	p.mu.Unlock()
	for _, e := range all {
		e.cancel()
	}
	for _, e := range all {
		e.end()
	}
}
