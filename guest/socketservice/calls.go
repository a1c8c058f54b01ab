package socketservice

import (
	"fmt"

	"golang.org/x/sys/unix"
)

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
//
// When Register returns, no handler of the service runs that was called for the
// former sockets: called while one does, it waits for it and then replaces the set,
// including what that handler has registered. So the caller must not hold a lock
// that the handler takes. Called from inside a handler it does not wait.
func (s *Service) Register(fds []unix.PollFd, userData any) error {
	return s.register(len(fds), func(i int) (unix.PollFd, any) { return fds[i], userData })
}

// RegisterEach is Register with user data of its own for each socket. What
// [Service.Sockets] returns can be registered again, changed or not.
func (s *Service) RegisterEach(sockets []Socket) error {
	return s.register(len(sockets), func(i int) (unix.PollFd, any) { return sockets[i].PollFd, sockets[i].UserData })
}

func (s *Service) register(count int, entry func(int) (unix.PollFd, any)) error {
	if count == 0 {
		return s.clear("register", true)
	}
	return s.locked("register", true, func(l *Loop) error {
		if err := l.capacity(s); err != nil {
			return err
		}
		if count > int(s.count) {
			return fmt.Errorf("%d sockets for %d slots: %w", count, s.count, unix.ENOMEM)
		}
		l.quiesce(s)
		if l.state != running { // it was stopped meanwhile
			return refusal(l.state, l.cause)
		}
		return l.replace(s, count, entry)
	})
}

// Add polls one more socket, with user data of its own, in the first slot to
// be had; the service's other sockets are not touched. If the service has the
// socket already, Add changes its events and user data in place: this is how a
// handler waits for POLLOUT. Its cost does not depend on the number of slots.
// (Zephyr #96109, #114405 and #118000 ask for it.)
//
// Like Register it waits for the loop's start, but not for a handler, as it takes no
// socket away. It fails with EIO and ENOENT as
// Register does, ENOMEM when all slots are taken, and with the kernel's errno
// when the socket can not be polled; this includes EBADF, for a descriptor that
// is not open. A call that fails has changed nothing.
func (s *Service) Add(fd int, events int16, userData any) error {
	return s.locked("add", true, func(l *Loop) error {
		if err := l.capacity(s); err != nil {
			return err
		}
		if err := l.add(s, int32(fd), events, userData); err != nil {
			return fmt.Errorf("socket %d: %w", fd, err)
		}
		return nil
	})
}

// Remove stops polling one socket, which the caller may close afterwards. As
// with Unregister no handler of the service runs when it returns, unless it is
// called from inside one. It fails with ENOENT if the service does not have the
// socket, and else as Unregister does. Its cost does not depend on the number
// of slots.
func (s *Service) Remove(fd int) error {
	return s.locked("remove", false, func(l *Loop) error {
		before := l.remove(s, int32(fd))
		l.quiesce(s)
		// The handler that was waited for may have added it again.
		if after := l.remove(s, int32(fd)); !before && !after {
			return fmt.Errorf("socket %d: %w", fd, unix.ENOENT)
		}
		return nil
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

// Close is Unregister, after which the loop closes the sockets (Zephyr
// #108180). It does so between two handler calls, so that no handler finds a
// descriptor closed that it was called for. From outside, Close returns when
// the sockets are closed. From inside a handler they stay open until that
// handler returns. What close(2) returns is not reported: the descriptor is
// gone in any case. The service itself stays: it can be given new sockets.
// Unlike Unregister it may wait for the handler of another service too.
//
// Another service that has one of the sockets loses it: its handler is called with
// POLLNVAL once, also when the number belongs to a new socket by then.
func (s *Service) Close() error {
	return s.locked("close", false, func(l *Loop) error {
		l.condemn(s)
		l.quiesce(s)
		if l.onLoop() {
			return nil // they are closed when the handler returns
		}
		l.condemn(s) // what the handler registered while it was waited for
		l.execute()
		return nil
	})
}

func (s *Service) clear(op string, wait bool) error {
	return s.locked(op, wait, func(l *Loop) error {
		l.release(s)
		l.quiesce(s)
		l.release(s) // what the handler registered while it was waited for
		return nil
	})
}

// capacity refuses a service whose slots are more than PollMax allows.
func (l *Loop) capacity(s *Service) error {
	if s.refused {
		return fmt.Errorf("slots of all services: PollMax of %d is too small, at least %d needed: %w",
			l.cfg.PollMax, l.total+int(s.count)+1, unix.ENOMEM)
	}
	return nil
}

// locked runs f with the loop's lock held if the loop runs, and names the
// operation and the service in its error. With wait it waits for the start.
func (s *Service) locked(op string, wait bool, f func(*Loop) error) error {
	if s == nil || s.definition == nil {
		return &Error{Op: op, Service: "(none)", Err: fmt.Errorf("not in any loop: %w", unix.ENOENT)}
	}
	l := s.loop
	l.callers.Add(1)
	l.mu.Lock()
	l.callers.Add(-1)
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
