package socketservice

import (
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// fake is a poller without a kernel. The test says which sockets fire, which calls fail,
// and which events one round gets.
type fake struct {
	mu       sync.Mutex
	changed  sync.Cond
	interest map[int]unix.EpollEvent
	rounds   [][]unix.EpollEvent // the results of the next calls of wait
	waitErrs []error             // the errors that wait returns before them
	refuse   func(op, fd int) error
	woken    bool
	closed   bool
}

func newFake() *fake {
	f := &fake{interest: map[int]unix.EpollEvent{}}
	f.changed.L = &f.mu
	return f
}

// newFakeLoop returns a loop with fake pollers, and a function that returns the newest.
func newFakeLoop(t testing.TB, c Config) (l *Loop, newest func() *fake) {
	var mu sync.Mutex
	var made []*fake
	t.Cleanup(func() { // after the loop's stop
		for _, f := range made {
			if !f.closed {
				t.Error("a poller was not closed")
			}
		}
	})
	l = newLoop(t, c)
	l.newPoller = func() (poller, error) {
		mu.Lock()
		defer mu.Unlock()
		made = append(made, newFake())
		return made[len(made)-1], nil
	}
	return l, func() *fake {
		mu.Lock()
		defer mu.Unlock()
		return made[len(made)-1]
	}
}

func (f *fake) control(op int, fd int, ev *unix.EpollEvent) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.refuse != nil {
		if err := f.refuse(op, fd); err != nil {
			return err
		}
	}
	_, have := f.interest[fd]
	switch {
	case op == unix.EPOLL_CTL_ADD && have:
		return unix.EEXIST
	case op != unix.EPOLL_CTL_ADD && !have:
		return unix.ENOENT
	case op == unix.EPOLL_CTL_DEL:
		delete(f.interest, fd)
	default:
		f.interest[fd] = *ev
	}
	return nil
}

func (f *fake) wait(events []unix.EpollEvent) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for !f.woken && len(f.waitErrs) == 0 && len(f.rounds) == 0 {
		f.changed.Wait()
	}
	f.woken = false
	if len(f.waitErrs) > 0 {
		err := f.waitErrs[0]
		f.waitErrs = f.waitErrs[1:]
		return 0, err
	}
	if len(f.rounds) == 0 {
		return 0, nil
	}
	n := copy(events, f.rounds[0])
	f.rounds = f.rounds[1:]
	return n, nil
}

func (f *fake) wake() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.woken = true
	f.changed.Signal()
}

func (f *fake) intact() bool { return true }

func (f *fake) close() { f.closed = true }

// fire makes one round report input on the descriptors, in this order.
func (f *fake) fire(fds ...int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var round []unix.EpollEvent
	for _, fd := range fds {
		ev := f.interest[fd]
		ev.Events = unix.EPOLLIN
		round = append(round, ev)
	}
	f.rounds = append(f.rounds, round)
	f.changed.Signal()
}

// fail makes wait return an error.
func (f *fake) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.waitErrs = append(f.waitErrs, err)
	f.changed.Signal()
}

// polled returns the descriptors and the events that are polled for on each.
func (f *fake) polled() map[int]uint32 {
	f.mu.Lock()
	defer f.mu.Unlock()
	m := map[int]uint32{}
	for fd, ev := range f.interest {
		m[fd] = ev.Events
	}
	return m
}
