package socketservice

import (
	"runtime"
)

// An outside is a call by another goroutine that waits for a handler to return.
type outside struct {
	ms     *modelService
	again  func() bool // what the model does when it has returned
	result chan error
}

// wait makes another goroutine call the service whose handler runs, and returns when that
// call waits for the handler.
func (q *sequence) wait(i int) {
	if q.outside != nil {
		return
	}
	q.compare()
	s, ms := q.services[i], q.m.services[i]
	fd := int32(q.choose(numbers)) - 1
	set := q.set(ms)
	var call func() error
	o := &outside{ms: ms, result: make(chan error, 1)}
	op := q.choose(4)
	if len(set) == 0 { // the same
		op = 0
	}
	switch op {
	case 0:
		call = s.Unregister
		o.again = func() bool { return q.m.register(ms, nil) }
		o.again()
	case 1:
		call = func() error { return s.Remove(int(fd)) }
		before := q.m.remove(ms, fd)
		o.again = func() bool { return q.m.remove(ms, fd) || before }
	default: // nothing is changed before the handler has returned
		call = func() error { return s.RegisterEach(set) }
		o.again = func() bool { return q.m.register(ms, set) }
	}
	q.note("from outside: op %d service %d socket %d set %v", op, i, fd, set)
	go func() { o.result <- call() }()
	q.outside = o
	for {
		q.l.mu.Lock()
		waits := q.l.quiescing[s] > 0
		q.l.mu.Unlock()
		if waits {
			return
		}
		select {
		case err := <-o.result:
			if len(set) <= ms.slots || err == nil {
				q.fail("a call from outside did not wait for the handler that runs: %v", err)
			}
			q.outside = nil
			return
		default:
			runtime.Gosched()
		}
	}
}

// settle lets the call from outside return after its handler has returned.
func (q *sequence) settle() {
	o := q.outside
	if o == nil {
		return
	}
	q.outside = nil
	err := <-o.result
	for _, h := range o.ms.has { // they were not called meanwhile
		h.excused, h.waiting = q.m.round, false
	}
	if ok := o.again(); ok != (err == nil) {
		q.fail("call from outside: %v", err)
	}
	q.note("the call from outside returned: %v", err)
}
