package socketservice

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// batch is how many sockets one round serves at most. Epoll keeps what
	// is ready in a queue, and puts a socket that it has reported at the
	// end: with more ready sockets than this, none is served twice before
	// all are served once.
	batch = 128

	// An interest is verified when it has fired twice without a quiet while
	// and then at every checkEvery-th event: see collect.
	checkEvery = 16
	quiet      = 8 // rounds

	// After a poller could not be replaced, the next attempt waits.
	minPause = 10 * time.Millisecond
	maxPause = time.Second
)

// A call is what a round has to do: one handler call for one slot, unless the
// slot's generation shows that it has changed since.
type call struct {
	slot    *slot
	gen     uint32
	revents int16
}

// run is the loop's goroutine. The channel gets the result of its setup; it is
// nil when the loop goes on after a handler has ended the former goroutine.
func (l *Loop) run(ready chan<- error) {
	defer func() {
		if l.inHandler {
			// runtime.Goexit, which is also what a failing test in
			// a handler calls: it can not be refused, but it is no
			// reason to leave the other sockets without a loop.
			l.inHandler = false
			l.mu.Lock()
			l.ready = l.ready[:0]
			l.finish(false, 0)
			l.mu.Unlock()
			go l.run(nil)
		}
	}()
	err := l.setThread()
	l.mu.Lock()
	l.goid = goid()
	l.mu.Unlock()
	if ready != nil {
		ready <- err
		if err != nil {
			return
		}
	}
	for l.turn() {
	}
	l.mu.Lock()
	l.shut()
	l.mu.Unlock()
	close(l.done)
}

// setThread gives the loop the thread that its configuration asks for. The
// goroutine never unlocks it: so the thread ends with the loop, and nobody
// else inherits its priority.
func (l *Loop) setThread() error {
	if !l.cfg.LockThread && l.cfg.Priority == 0 {
		return nil
	}
	runtime.LockOSThread()
	if l.cfg.Priority == 0 {
		return nil
	}
	// On Linux a nice value belongs to a thread; 0 is the calling one.
	if err := unix.Setpriority(unix.PRIO_PROCESS, 0, l.cfg.Priority); err != nil {
		return fmt.Errorf("priority %d: %w", l.cfg.Priority, os.NewSyscallError("setpriority", err))
	}
	return nil
}

// turn runs one round and reports whether there is to be another.
func (l *Loop) turn() bool {
	l.mu.Lock()
	if l.state == stopped {
		l.mu.Unlock()
		return false
	}
	p, mark := l.poller, l.seq
	l.mu.Unlock()

	n, waitErr := p.wait(l.events)

	l.mu.Lock()
	l.closeRetired()
	l.round++
	l.collect(l.events[:n], mark)
	var buildErr error
	if (l.dirty || waitErr != nil) && l.state != stopped {
		buildErr = l.rebuild()
	}
	l.gatherInvalid()
	l.dispatch()
	l.mu.Unlock()

	if waitErr != nil {
		l.log.Error("poll failed", "error", waitErr)
	}
	if buildErr == nil {
		l.pause = 0
		return true
	}
	l.pause = min(max(2*l.pause, minPause), maxPause)
	l.log.Error("poller can not be replaced", "error", buildErr, "retry", l.pause)
	// Whatever the old poller does, it is not let spin.
	time.Sleep(l.pause)
	return true
}

// collect turns the poller's events into calls. The mark is the newest
// generation at the time when the waiting began.
func (l *Loop) collect(events []unix.EpollEvent, mark uint32) {
	for i := range events {
		fd, fired := events[i].Fd, events[i].Events
		w := l.lookup(fd)
		if w == nil || !w.active || w.gen != uint32(events[i].Pad) {
			// An interest that was changed during the wait may still
			// fire once. One that fires although it was gone before
			// the wait began can not be removed: its descriptor is
			// closed and a duplicate of it is open.
			if w == nil || int32(w.gen-mark) <= 0 {
				l.dirty = true
			}
			continue
		}
		if !l.verify(fd, w) {
			continue
		}
		// Error and hang-up last until the socket is closed. A handler
		// that was told, and neither takes the error nor lets the socket
		// go, is told again when something new happens and not in every
		// round (Zephyr #111912).
		if parked := fired&w.mask == 0; parked != w.parked {
			w.parked = parked
			l.ev = w.interest(fd)
			if err := l.poller.control(unix.EPOLL_CTL_MOD, int(fd), &l.ev); err != nil {
				l.dirty = true
			}
		}
		for sl := w.first; sl != nil; sl = sl.next {
			if revents := int16(fired) & (sl.events&pollable | unasked); revents != 0 {
				l.ready = append(l.ready, call{sl, sl.gen, revents})
			}
		}
	}
}

// verify reports whether the socket that fired is still the one behind its
// descriptor. One that was closed without being unregistered is forgotten by
// the kernel, unless a duplicate of the descriptor keeps it open: then it fires
// in every round and no reading ends that (Zephyr #82652). Asking costs a
// system call, so only sockets that fire in one round after another are asked
// for, and those not every time.
func (l *Loop) verify(fd int32, w *watch) bool {
	if l.round-w.round > quiet {
		w.fires = 0
	}
	w.round = l.round
	w.fires++
	if w.fires%checkEvery != 2 || w.parked {
		return true
	}
	l.ev = w.interest(fd)
	switch err := l.poller.control(unix.EPOLL_CTL_MOD, int(fd), &l.ev); err {
	case nil:
		return true
	case unix.ENOENT, unix.EBADF:
		l.dirty = true // the interest can not be removed
		l.lose(fd, err)
		return false
	default:
		return true
	}
}

// gatherInvalid adds the calls that report POLLNVAL.
func (l *Loop) gatherInvalid() {
	for _, sl := range l.invalid {
		if sl.state == invalid {
			l.ready = append(l.ready, call{sl, sl.gen, unix.POLLNVAL})
		}
	}
	l.invalid = l.invalid[:0]
}

// dispatch makes the round's calls. It is called with the lock held and gives
// it up during each call; a slot whose generation has changed by then is
// passed over.
func (l *Loop) dispatch() {
	for _, c := range l.ready {
		sl := c.slot
		if sl.gen != c.gen || sl.service.quiescing > 0 || l.state != running {
			continue
		}
		l.event = Event{
			PollFd:   unix.PollFd{Fd: sl.fd, Events: sl.events, Revents: c.revents},
			UserData: sl.data,
			Service:  sl.service,
		}
		if c.revents&unix.POLLNVAL != 0 {
			l.dropFd(sl.service, sl.fd)
		}
		l.current, l.running = c, sl.service
		l.mu.Unlock()

		begin := time.Now()
		ok := l.handle()
		took := time.Since(begin)

		l.mu.Lock()
		l.finish(ok, took)
	}
	l.ready = l.ready[:0]
}

// handle calls the handler for l.event.
func (l *Loop) handle() (ok bool) {
	service, fd := l.event.Service, l.event.Fd
	defer func() {
		if ok {
			return
		}
		cause := recover()
		if cause == nil {
			cause = "runtime.Goexit"
		} else {
			l.inHandler = false
		}
		l.log.Error("handler failed, socket dropped", "service", service.name, "owner", service.owner,
			"fd", fd, "cause", cause, "stack", string(debug.Stack()))
	}()
	l.inHandler = true
	service.handler(&l.event)
	l.inHandler = false
	return true
}

// finish ends the call that runs.
func (l *Loop) finish(ok bool, took time.Duration) {
	s, c := l.running, l.current
	l.running, l.current = nil, call{}
	l.event = Event{}
	s.stats.Calls++
	s.stats.Time += took
	s.stats.MaxTime = max(s.stats.MaxTime, took)
	if !ok || c.revents&(unix.POLLERR|unix.POLLNVAL) != 0 {
		s.stats.Errors++
	}
	if !ok && c.slot.gen == c.gen {
		l.dropFd(s, c.slot.fd)
	}
	if s.quiescing > 0 {
		l.returned.Broadcast()
	}
}

// onLoop reports whether the caller is a handler of this loop.
func (l *Loop) onLoop() bool {
	return l.running != nil && l.goid == goid()
}

// quiesce waits until the handler of the service that runs, if one does, has
// returned. It is not called again before quiesce returns, even if the handler
// has registered sockets meanwhile: else a handler that does so each time could
// be waited for without end.
func (l *Loop) quiesce(s *Service) {
	if l.running != s || l.onLoop() {
		return
	}
	s.quiescing++
	for l.running == s {
		l.returned.Wait()
	}
	s.quiescing--
}
