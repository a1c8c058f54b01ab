package socketservice

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Register replaces all sockets of the service, with the events to poll each for and
// the user data of their events. An entry with a negative descriptor leaves its slot
// free, as in poll(2). If several entries have the same descriptor, the loop polls it
// for the events of all of them and reports them to the first. Without entries,
// Register does what [Service.Unregister] does. It does not keep the slice.
//
// Before the loop's start Register waits for it (Zephyr #73523). It fails with
// EIO when the start failed or the loop has been stopped, ENOENT when no loop
// holds the service, and ENOMEM when there are more entries than slots.
//
// A call that fails changes nothing: the former sockets are still polled. (Zephyr
// clears them before it looks at the new set.) Register fails with the kernel's
// errno if the kernel refuses to poll a descriptor: EPERM for a regular file, which
// poll(2) reports as always ready. A descriptor that is not open is no failure, as in
// poll(2): the handler is called once with POLLNVAL, and the slot is free.
//
// If the service's handler runs at the time of the call, Register waits until the
// handler returns, and then replaces the set, including sockets that the handler has
// registered. So when Register returns, no call for a former socket is running. The
// caller must not hold a lock that the handler takes. When a handler calls Register,
// Register does not wait.
func (s *Service) Register(fds []unix.PollFd, userData any) error {
	return s.register(len(fds), func(i int) (unix.PollFd, any) { return fds[i], userData })
}

// RegisterEach is like Register, but each socket has its own user data. It accepts
// what [Service.Sockets] returns, changed or not.
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

// Add adds a socket with its own user data, in the first free slot. It does not change
// the service's other sockets. If the service already has the socket, Add changes the
// socket's events and user data; a handler waits for POLLOUT in this way. The cost
// does not depend on the number of slots. (Zephyr #96109, #114405 and #118000 ask for
// such a function.)
//
// Like Register, Add waits for the loop's start. It does not wait for a handler,
// because it removes no socket. It fails with EIO and ENOENT as Register does, with
// ENOMEM when all slots are taken, and with the kernel's errno when the socket cannot
// be polled, including EBADF for a descriptor that is not open. A call that fails
// changes nothing.
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

// Remove stops polling one socket, which the caller may close afterwards. When it
// returns, no handler of the service runs, unless the handler itself called Remove. It
// fails with ENOENT if the service does not have the socket. Its other errors are
// Unregister's. The cost does not depend on the number of slots.
func (s *Service) Remove(fd int) error {
	return s.locked("remove", false, func(l *Loop) error {
		before := l.remove(s, int32(fd))
		l.quiesce(s)
		// While quiesce waited, the handler may have added the socket again.
		if after := l.remove(s, int32(fd)); !before && !after {
			return fmt.Errorf("socket %d: %w", fd, unix.ENOENT)
		}
		return nil
	})
}

// Unregister stops polling the service's sockets, which the caller may close
// afterwards. If the service's handler runs at the time of the call, Unregister waits
// until the handler returns (Zephyr #110857), so the caller must not hold a lock that
// the handler takes. When Unregister returns, no handler of the service runs. When the
// handler itself calls Unregister, Unregister does not wait.
//
// Before the loop's start there is nothing to unregister, and Unregister
// returns at once. The errors are EIO and ENOENT, as for Register.
func (s *Service) Unregister() error {
	return s.clear("unregister", false)
}

// Close unregisters the service's sockets as Unregister does, and makes the loop close
// them (Zephyr #108180). The loop closes them between two handler calls, so a handler
// never finds its event's descriptor closed. Close returns when the sockets are
// closed. When a handler calls Close, Close returns at once, and the sockets stay open
// until that handler returns. Close ignores the result of close(2), because the
// descriptor is gone in any case. The service remains and can get new sockets. Unlike
// Unregister, Close may also wait for the handler of another service.
//
// If another service has one of the sockets too, it loses the socket. The loop calls
// its handler once with POLLNVAL, even if the number belongs to a new socket by then.
func (s *Service) Close() error {
	return s.locked("close", false, func(l *Loop) error {
		l.condemn(s)
		l.quiesce(s)
		if l.onLoop() {
			return nil // the loop closes the sockets when the handler returns
		}
		l.condemn(s) // the sockets that the handler has registered meanwhile
		l.execute()
		return nil
	})
}

func (s *Service) clear(op string, wait bool) error {
	return s.locked(op, wait, func(l *Loop) error {
		l.release(s)
		l.quiesce(s)
		l.release(s) // the sockets that the handler has registered meanwhile
		return nil
	})
}

// capacity returns an error for a service whose slots exceed PollMax.
func (l *Loop) capacity(s *Service) error {
	if s.refused {
		return fmt.Errorf("slots of all services: PollMax of %d is too small, at least %d needed: %w",
			l.cfg.PollMax, l.total+int(s.count)+1, unix.ENOMEM)
	}
	return nil
}

// locked runs f with the loop's lock held if the loop runs, and adds the operation
// and the service to its error. If wait is true, it first waits for the loop's start.
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
