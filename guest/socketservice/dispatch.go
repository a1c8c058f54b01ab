package socketservice

import (
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// batch is how many sockets one round serves at most. Epoll keeps ready
	// sockets in a queue and moves a socket to the end when it has reported it.
	// So even with more ready sockets than this, the loop serves none twice
	// before it has served all once.
	batch = 128

	// A loop that always finds ready sockets yields the processor to other
	// goroutines this often. Go's scheduler alone would do so every 10 ms if
	// there is only one processor.
	yieldEvery = 500 * time.Microsecond
	rested     = 20 * time.Microsecond // if more passes between two rounds, the loop has waited

	// The loop verifies an interest at its second event without quiet rounds in
	// between, and then at every checkEvery-th event; see verify.
	checkEvery = 64
	quiet      = 8 // rounds

	// After a failure to replace the poller, the loop pauses this long.
	minPause = 10 * time.Millisecond
	maxPause = time.Second
)

// A call is a pending handler call for one slot. If the slot's generation has changed
// meanwhile, dispatch drops the call.
type call struct {
	slot    uint32
	gen     uint32
	revents int16
}

// run is the loop's goroutine. The channel gets the result of the setup. It is nil if the
// goroutine replaces one that a handler has ended.
func (l *Loop) run(ready chan<- error) {
	// The first deferred function runs even if the logger calls Goexit in the second.
	defer func() {
		if l.inProgram {
			l.inProgram = false
			go l.run(nil)
		}
	}()
	defer func() {
		if l.inProgram {
			l.survive()
		}
	}()
	err := l.setThread()
	l.mu.Lock()
	l.goid = goid()
	if ready == nil {
		l.dispatch() // the rest of the round
	}
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

// setThread gives the loop the thread that its configuration asks for. The goroutine
// never unlocks it, so the thread ends with the loop and no other goroutine inherits
// its priority.
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

// turn runs one round and reports whether another one follows.
func (l *Loop) turn() bool {
	l.mu.Lock()
	if l.state == stopped {
		l.mu.Unlock()
		return false
	}
	p, mark := l.poller, l.seq
	l.waitsOn = p
	l.mu.Unlock()

	n, waitErr := p.wait(l.events)

	l.mu.Lock()
	l.waitsOn = nil
	l.closeRetired()
	l.round++
	l.collect(l.events[:n], mark)
	var buildErr error
	if (l.dirty || waitErr != nil) && l.state != stopped {
		buildErr = l.rebuild()
	}
	robbed := l.robbed
	l.robbed = false
	l.dispatch()
	l.mu.Unlock()

	if robbed {
		l.say(slog.LevelWarn, "poller replaced", "cause", errGone)
	} else if waitErr != nil {
		l.say(slog.LevelError, "poll failed", "error", waitErr)
	}
	if buildErr == nil {
		l.pause = 0
		// Without a yield, a caller that waits for the lock would lose the race
		// for it in every round, until the mutex favours it after 1 ms.
		if l.ended-l.yielded > yieldEvery || l.callers.Load() > 0 {
			runtime.Gosched()
			l.yielded = l.ended
		}
		return true
	}
	l.pause = min(max(2*l.pause, minPause), maxPause)
	l.say(slog.LevelError, "poller cannot be replaced", "error", buildErr, "retry", l.pause)
	// Pause, because the old poller may return at once every time.
	time.Sleep(l.pause)
	return true
}

// dispatch makes the remaining calls of the round. The caller holds the lock, and
// dispatch releases it during each call. It skips a slot whose generation has changed
// meanwhile.
func (l *Loop) dispatch() {
	if l.at == len(l.ready) && len(l.losses) == 0 {
		return
	}
	begin := l.clock()
	if begin-l.ended > rested {
		l.yielded = begin
	}
	l.watchOver()
	for l.at < len(l.ready) {
		c := l.ready[l.at]
		l.at++
		sl := l.slots.at(c.slot)
		if sl.gen != c.gen || l.state != running {
			continue
		}
		s := l.services.at(sl.service)
		if len(l.quiescing) > 0 && l.quiescing[s] > 0 {
			l.unpark(sl.fd)
			continue
		}
		l.event = Event{
			PollFd:   unix.PollFd{Fd: sl.fd, Events: sl.events, Revents: c.revents},
			UserData: l.userData(c.slot),
			Service:  s,
		}
		begin = l.call(c, begin)
	}
	begin = l.tellLosses(begin)
	l.ended = begin
}

// call calls the handler for l.event, without the lock. It returns the time at which the call ended.
func (l *Loop) call(c call, begin time.Duration) (end time.Duration) {
	l.current, l.running, l.runningFd, l.begun = c, l.event.Service, l.event.Fd, begin
	l.serial++
	l.mu.Unlock()

	ok := l.handle()
	end = l.clock()
	took := end - begin
	if !ok || took >= l.slow {
		l.report(ok, took)
		end = l.clock()
	}

	l.mu.Lock()
	l.finish(ok, took)
	return end
}

// finish does the accounting of the running call and ends it.
func (l *Loop) finish(ok bool, took time.Duration) {
	s, c := l.running, l.current
	l.running, l.current = nil, call{}
	l.event.UserData = nil // do not keep it alive
	index := l.slots.at(s.base).service
	n := l.account(index)
	n.calls++
	n.time += took
	n.max = max(n.max, took)
	if !ok || c.revents&(unix.POLLERR|unix.POLLNVAL) != 0 {
		l.errors[index]++
	}
	if !ok && c.revents&unix.POLLNVAL == 0 && l.slots.at(c.slot).gen == c.gen {
		l.dropFd(s, c.slot)
	}
	l.execute()
	if len(l.quiescing) > 0 {
		l.returned.Broadcast()
	}
}

// unpark makes the poller report an error or a hang-up again, because dispatch has skipped the
// handler's call for it.
func (l *Loop) unpark(fd int32) {
	w := l.lookup(fd)
	if w == nil || !w.active || !w.parked {
		return
	}
	w.parked = false
	l.ev = w.interest(fd)
	if err := l.poller.control(unix.EPOLL_CTL_MOD, int(fd), &l.ev); err != nil {
		l.dirty = true
	}
}

// onLoop reports whether the caller is a handler of this loop.
func (l *Loop) onLoop() bool {
	return l.running != nil && l.goid == goid()
}

// quiesce waits until the service's handler has returned, if it runs. The loop does not
// call the handler again before quiesce returns, even if the handler has registered
// sockets meanwhile. Otherwise quiesce could wait forever for a handler that registers
// sockets in each call.
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
