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

	// A loop that always finds something ready lets other goroutines have
	// the processor so often, where there is but one. Of itself Go does so
	// every 10 ms.
	yieldEvery = 500 * time.Microsecond
	rested     = 20 * time.Microsecond // between two rounds: it has waited

	// An interest is verified when it has fired twice without a quiet while
	// and then at every checkEvery-th event: see collect.
	checkEvery = 64
	quiet      = 8 // rounds

	// After a poller could not be replaced, the next attempt waits.
	minPause = 10 * time.Millisecond
	maxPause = time.Second
)

// A call is what a round has to do: one handler call for one slot, unless the
// slot's generation shows that it has changed since.
type call struct {
	slot    uint32
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
		// A caller that waits for the lock would lose the race for it, round
		// after round, until the mutex calls it starved after 1 ms.
		if l.ended-l.yielded > yieldEvery || l.callers.Load() > 0 {
			runtime.Gosched()
			l.yielded = l.ended
		}
		return true
	}
	l.pause = min(max(2*l.pause, minPause), maxPause)
	l.log.Error("poller can not be replaced", "error", buildErr, "retry", l.pause)
	// Whatever the old poller does, it is not let spin.
	time.Sleep(l.pause)
	return true
}

// gatherInvalid adds the calls that report POLLNVAL.
func (l *Loop) gatherInvalid() {
	l.invalidFrom = len(l.ready)
	for _, id := range l.invalid {
		if sl := l.slots.at(id); sl.state == invalid {
			l.ready = append(l.ready, call{id, sl.gen, unix.POLLNVAL})
		}
	}
	l.invalid = l.invalid[:0]
}

// dispatch makes the round's calls. It is called with the lock held and gives
// it up during each call; a slot whose generation has changed by then is
// passed over.
func (l *Loop) dispatch() {
	if len(l.ready) == 0 {
		return
	}
	begin := l.clock()
	if begin-l.ended > rested {
		l.yielded = begin
	}
	for _, c := range l.ready {
		sl := l.slots.at(c.slot)
		s := l.services.at(sl.service)
		if sl.gen != c.gen || l.state != running || len(l.quiescing) > 0 && l.quiescing[s] > 0 {
			continue
		}
		l.event = Event{
			PollFd:   unix.PollFd{Fd: sl.fd, Events: sl.events, Revents: c.revents},
			UserData: l.userData(c.slot),
			Service:  s,
		}
		if c.revents&unix.POLLNVAL != 0 {
			l.dropFd(s, c.slot)
		}
		l.current, l.running = c, s
		l.mu.Unlock()

		ok := l.handle()
		end := l.clock()

		l.mu.Lock()
		l.finish(ok, end-begin)
		begin = end
	}
	l.ready = l.ready[:0]
	l.ended = begin
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
		l.log.Error("handler failed, socket dropped", "service", service.name, "owner", service.Owner(),
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
	l.event.UserData = nil // do not keep it alive
	sl := l.slots.at(c.slot)
	n := l.account(sl.service)
	n.calls++
	n.time += took
	n.max = max(n.max, took)
	if !ok || c.revents&(unix.POLLERR|unix.POLLNVAL) != 0 {
		l.errors[sl.service]++
	}
	if !ok && sl.gen == c.gen {
		l.dropFd(s, c.slot)
	}
	l.execute()
	if len(l.quiescing) > 0 {
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
	l.quiescing[s]++
	for l.running == s {
		l.returned.Wait()
	}
	if l.quiescing[s]--; l.quiescing[s] == 0 {
		delete(l.quiescing, s)
	}
}
