package socketservice

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// undo is the interest in a descriptor before replace changed it.
type undo struct {
	fd     int32
	mask   uint32
	active bool
}

// replace gives the service a new set of sockets. It asks the kernel for all
// new interests first, beside the old ones; if the kernel refuses one, those
// before it are taken back and the old set has never been without a poller.
func (l *Loop) replace(s *Service, fds []unix.PollFd, data any) error {
	l.plan++
	l.undo = l.undo[:0]
	l.next = l.next[:0]
	defer func() { clear(l.next) }() // do not keep the user data alive

	for _, p := range fds {
		sl := slot{service: s, fd: -1}
		if p.Fd >= 0 {
			sl.fd, sl.events, sl.data = p.Fd, p.Events, data
			if err := l.admit(&sl); err != nil {
				l.rollback()
				return fmt.Errorf("socket %d: %w", p.Fd, err)
			}
		}
		l.next = append(l.next, sl)
	}

	for i := range s.slots {
		old := &s.slots[i]
		if old.state == owner {
			l.unlink(old)
			if l.watches[old.fd].plan != l.plan {
				l.settle(old.fd)
			}
		}
	}
	gen := l.newGen()
	for i := range s.slots {
		sl := &s.slots[i]
		*sl = slot{service: s, fd: -1}
		if i < len(l.next) {
			*sl = l.next[i]
		}
		sl.gen = gen
		switch sl.state {
		case owner:
			l.link(sl)
		case invalid:
			l.tell(sl)
		}
	}
	return nil
}

// admit has the kernel poll the socket of a slot that is not yet in place.
func (l *Loop) admit(sl *slot) error {
	want := uint32(sl.events & pollable)
	w := l.lookup(sl.fd)
	if w != nil && w.plan == l.plan {
		first := &l.next[w.planned]
		sl.state = duplicate
		first.events |= sl.events
		if want&^w.mask == 0 {
			return nil
		}
		_, err := l.arm(sl.fd, w.mask|want, sl.service)
		return err
	}
	before := undo{fd: sl.fd}
	if w != nil {
		before.mask, before.active = w.mask, w.active
	}
	w, err := l.arm(sl.fd, want, sl.service)
	if err == unix.EBADF {
		sl.state = invalid
		return nil
	}
	if err != nil {
		return err
	}
	sl.state = owner
	w.plan, w.planned = l.plan, int32(len(l.next))
	before.active = before.active && w.first != nil // not if arm found them lost
	l.undo = append(l.undo, before)
	return nil
}

// rollback takes back what replace has changed.
func (l *Loop) rollback() {
	for _, u := range l.undo {
		w := &l.watches[u.fd]
		if !u.active || !w.active {
			l.settle(u.fd)
			continue
		}
		gen := l.newGen()
		if err := l.control(unix.EPOLL_CTL_MOD, u.fd, gen, u.mask); err != nil {
			l.renew()
		}
		l.settled(u.fd, gen, u.mask)
	}
}

// release frees all slots of a service.
func (l *Loop) release(s *Service) {
	for i := range s.slots {
		if sl := &s.slots[i]; sl.fd >= 0 {
			l.drop(sl)
		}
	}
}

// drop frees a slot, and ends the interest if no other slot has it.
func (l *Loop) drop(sl *slot) {
	fd, owned := sl.fd, sl.state == owner
	if owned {
		l.unlink(sl)
	}
	*sl = slot{service: sl.service, fd: -1, gen: l.newGen()}
	if owned {
		l.settle(fd)
	}
}

// dropFd frees the slots of a service that hold the descriptor: the owner and
// its duplicates.
func (l *Loop) dropFd(s *Service, fd int32) {
	for i := range s.slots {
		if sl := &s.slots[i]; sl.fd == fd {
			l.drop(sl)
		}
	}
}
