package socketservice

import (
	"fmt"
	"path"
	"runtime"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// A Handler is called on the loop when one of its service's sockets has
// something to report. It must not block; see the package documentation.
//
// A handler that panics loses the socket it was called for: the loop logs the
// panic, frees the slot (the socket stays open) and goes on.
type Handler func(*Event)

// An Event is what a handler is called with: a copy of the slot's state at the
// time of the call. The loop uses the same Event again for the next call, so
// it is valid only until the handler returns; a handler that needs it longer
// copies it.
//
// Revents is unfiltered: POLLERR, POLLHUP and POLLNVAL arrive whether or not
// they were asked for, together with POLLIN where there are bytes to read
// before the end (Zephyr #113090). POLLNVAL means that the descriptor was not
// open; its slot is free already.
type Event struct {
	unix.PollFd
	UserData any
	Service  *Service
}

// A Service is a handler and the slots for the sockets that it serves. It is
// made by [Define] or [Loop.Define] and lives as long as its loop.
type Service struct {
	loop    *Loop
	name    string
	owner   string
	handler Handler
	slots   []slot
	refused bool // defined on a running loop, over its PollMax

	// Under the loop's lock.
	stats     Stats
	quiescing int // callers of Unregister that wait for the handler
}

// Stats counts what a service did since it was defined.
type Stats struct {
	Calls   uint64        // calls of the handler
	Time    time.Duration // spent in the handler, all calls together
	MaxTime time.Duration // the longest call
	Errors  uint64        // events with POLLERR or POLLNVAL, and panics
}

// define is Define for callers skip frames up the stack.
func (l *Loop) define(skip int, name string, handler Handler, count int) *Service {
	if handler == nil {
		panic(fmt.Sprintf("socketservice: define %q: handler is nil", name))
	}
	if count <= 0 {
		panic(fmt.Sprintf("socketservice: define %q: count of %d is not positive", name, count))
	}
	s := &Service{loop: l, name: name, owner: caller(skip + 1), handler: handler, slots: make([]slot, count)}
	for i := range s.slots {
		s.slots[i].service = s
		s.slots[i].fd = -1
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.state != idle && l.total+count+1 > l.cfg.PollMax {
		s.refused = true
	} else {
		l.total += count
	}
	l.services = append(l.services, s)
	return s
}

// caller returns the file:line skip frames above it, with the last folder of
// the path: enough to tell two services of one name apart, and the same on
// every machine.
func caller(skip int) string {
	_, file, line, ok := runtime.Caller(skip + 1)
	if !ok {
		return "?"
	}
	return path.Join(path.Base(path.Dir(file)), path.Base(file)) + ":" + strconv.Itoa(line)
}

// Name returns the name that the service was defined with. Two services may
// have the same.
func (s *Service) Name() string { return s.name }

// Owner returns where the service was defined, as folder/file.go:line.
func (s *Service) Owner() string { return s.owner }

// Slots returns how many sockets the service can hold.
func (s *Service) Slots() int { return len(s.slots) }

// Sockets returns a copy of the occupied slots, in slot order, with the events
// that they were registered for. Revents is zero.
func (s *Service) Sockets() []unix.PollFd {
	if s.loop == nil {
		return nil
	}
	s.loop.mu.Lock()
	defer s.loop.mu.Unlock()
	var fds []unix.PollFd
	for i := range s.slots {
		if sl := &s.slots[i]; sl.fd >= 0 {
			fds = append(fds, unix.PollFd{Fd: sl.fd, Events: sl.events})
		}
	}
	return fds
}

// Stats returns what the service has done so far.
func (s *Service) Stats() Stats {
	if s.loop == nil {
		return Stats{}
	}
	s.loop.mu.Lock()
	defer s.loop.mu.Unlock()
	return s.stats
}

// Register replaces all sockets of the service, with what is polled for on
// each, and the user data that their events carry. Entries with a negative
// descriptor leave their slot free, as in poll(2). Of entries with the same
// descriptor the first owns the event, which is polled for with the events of
// all of them. A set with no entries is [Service.Unregister]. The slice is not
// kept.
//
// Before the loop's start Register waits for it (Zephyr #73523). It fails with
// EIO when the start failed or the loop has been stopped, ENOENT when no loop
// holds the service, and ENOMEM when there are more entries than slots.
//
// A call that fails has changed nothing: the former sockets are still polled.
// (Zephyr's clears them before it looks at the new set.) This includes
// descriptors that the kernel refuses to poll, which are reported with the
// kernel's errno: EPERM for a regular file, which poll(2) calls always ready.
// A descriptor that is not open is no failure, as in poll(2): the handler is
// called with POLLNVAL, once, and the slot is free.
func (s *Service) Register(fds []unix.PollFd, userData any) error {
	if len(fds) == 0 {
		return s.clear("register", true)
	}
	return s.locked("register", true, func(l *Loop) error {
		if s.refused {
			return fmt.Errorf("slots of all services: PollMax of %d is too small, at least %d needed: %w",
				l.cfg.PollMax, l.total+len(s.slots)+1, unix.ENOMEM)
		}
		if len(fds) > len(s.slots) {
			return fmt.Errorf("%d sockets for %d slots: %w", len(fds), len(s.slots), unix.ENOMEM)
		}
		return l.replace(s, fds, userData)
	})
}

// Unregister stops polling the service's sockets; the caller may close them
// afterwards. When it returns, no handler of the service runs: called while
// one does, it waits for it (Zephyr #110857), so the caller must not hold a
// lock that the handler takes. Called from inside a handler of the same
// service it does not wait.
//
// Before the loop's start there is nothing to unregister, and Unregister
// returns at once. The errors are EIO and ENOENT, as for Register.
func (s *Service) Unregister() error {
	return s.clear("unregister", false)
}

func (s *Service) clear(op string, wait bool) error {
	return s.locked(op, wait, func(l *Loop) error {
		l.release(s)
		l.quiesce(s)
		l.release(s) // what the handler registered while it was waited for
		return nil
	})
}

// locked runs f with the loop's lock held if the loop runs, and names the
// operation and the service in its error. With wait it waits for the start.
func (s *Service) locked(op string, wait bool, f func(*Loop) error) error {
	if s == nil || s.loop == nil {
		name := "(none)"
		if s != nil && s.name != "" {
			name = s.name
		}
		return &Error{Op: op, Service: name, Err: fmt.Errorf("not in any loop: %w", unix.ENOENT)}
	}
	l := s.loop
	l.mu.Lock()
	for l.state == idle || l.state == starting {
		idled := l.state == idle
		l.mu.Unlock()
		if idled && !wait {
			return nil
		}
		<-l.started
		l.mu.Lock()
	}
	defer l.mu.Unlock()
	var err error
	if l.state == running {
		err = f(l)
	} else {
		err = refusal(l.state, l.cause)
	}
	if err != nil {
		return &Error{Op: op, Service: s.name, Err: err}
	}
	return nil
}
