package socketservice

import (
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// undo is the interest in a descriptor before replace changed it.
type undo struct {
	fd     int32
	gen    uint32
	mask   uint16
	active bool
}

// replace gives the service a new set of count sockets. The function entry returns a
// socket and its user data. First replace adds all new interests to the poller, beside
// the old ones. If the kernel refuses one, replace removes the new ones again. So the
// loop polls the old set without a gap.
func (l *Loop) replace(s *Service, count int, entry func(int) (unix.PollFd, any)) error {
	l.undo = l.undo[:0]
	l.next = l.next[:0]
	defer clear(l.planned)

	for i := range count {
		sl := slot{fd: -1}
		p, _ := entry(i)
		if p.Fd >= 0 {
			sl.fd, sl.events = p.Fd, p.Events
			if err := l.admit(s, &sl); err != nil {
				l.rollback()
				return fmt.Errorf("socket %d: %w", p.Fd, err)
			}
		}
		l.next = append(l.next, sl)
	}

	for i := range s.count {
		id := s.base + uint32(i)
		if old := l.slots.at(id); old.state == owner {
			l.unlink(id)
			if _, again := l.planned[old.fd]; !again {
				l.settle(old.fd)
			}
		}
	}
	l.forget(s, -1)
	gen := l.newGen()
	s.free = noSlot
	for i := s.count - 1; i >= 0; i-- { // backwards, so that the first free slot is the first of the chain
		id := s.base + uint32(i)
		sl := l.slots.at(id)
		service := sl.service
		*sl = slot{fd: -1}
		if int(i) < len(l.next) && l.next[i].state != invalid {
			*sl = l.next[i]
		}
		sl.service, sl.gen = service, gen
		if sl.fd < 0 {
			sl.fd = chained(s.free)
			s.free = i
			l.setUserData(id, nil)
		} else {
			_, data := entry(int(i))
			l.setUserData(id, data)
		}
	}
	for i, sl := range l.next {
		switch sl.state {
		case owner:
			l.link(s.base + uint32(i))
		case invalid:
			_, data := entry(i)
			l.tell(s, unix.PollFd{Fd: sl.fd, Events: sl.events}, data)
		}
	}
	return nil
}

// admit makes the kernel poll the socket of a slot that is not in place yet.
func (l *Loop) admit(s *Service, sl *slot) error {
	want := uint16(sl.events & pollable)
	if n, again := l.planned[sl.fd]; again {
		first := &l.next[n]
		sl.state = duplicate
		first.doubled = true
		first.events |= sl.events
		if first.state == invalid {
			*sl = slot{fd: -1} // one call reports the loss
			return nil
		}
		w := l.watches.at(uint32(sl.fd))
		if want&^w.mask == 0 {
			return nil
		}
		return l.arm(sl.fd, w.mask|want, s)
	}
	before := undo{fd: sl.fd}
	if w := l.lookup(sl.fd); w != nil {
		before.gen, before.mask, before.active = w.gen, w.mask, w.active
	}
	err := l.arm(sl.fd, want, s)
	if err != nil && err != unix.EBADF {
		return err
	}
	l.planned[sl.fd] = int32(len(l.next))
	if err == unix.EBADF {
		sl.state = invalid
		return nil
	}
	sl.state = owner
	// There is nothing to restore if arm found that the socket was lost.
	before.active = before.active && l.watches.at(uint32(sl.fd)).first != 0
	l.undo = append(l.undo, before)
	return nil
}

// rollback takes back the changes of replace.
func (l *Loop) rollback() {
	for _, u := range l.undo {
		w := l.watches.at(uint32(u.fd))
		if !u.active || !w.active {
			l.settle(u.fd)
			continue
		}
		if err := l.control(unix.EPOLL_CTL_MOD, u.fd, u.gen, u.mask); err != nil {
			l.renew()
		}
		l.settled(u.fd, u.gen, u.mask) // the old generation, so that pending events still count
	}
}

// add adds a socket to the service, or changes the events and user data of one that the
// service has.
func (l *Loop) add(s *Service, fd int32, events int16, data any) error {
	if fd < 0 {
		return unix.EBADF
	}
	_, had := l.holding(s, fd)
	if !had && s.free == noSlot {
		l.sweepService(s) // frees the slots of closed sockets
	}
	if !had && s.free == noSlot {
		return fmt.Errorf("all %d slots are taken: %w", s.count, unix.ENOMEM)
	}
	if err := l.arm(fd, uint16(events&pollable), s); err != nil {
		return err
	}
	l.forget(s, fd)             // a POLLNVAL call would now seem to mean the new socket
	id, had := l.holding(s, fd) // again, because arm may have found that the old socket was lost
	if !had {
		id = s.base + uint32(s.free)
		sl := l.slots.at(id)
		s.free = chained(sl.fd) // its own inverse
		sl.fd, sl.state = fd, owner
		l.link(id)
	}
	sl := l.slots.at(id)
	sl.events, sl.gen = events, l.newGen()
	l.setUserData(id, data)
	return nil
}

// remove removes one socket from the service. It reports whether the service had the socket.
func (l *Loop) remove(s *Service, fd int32) bool {
	if id, ok := l.holding(s, fd); ok {
		l.dropFd(s, id)
		return true
	}
	return fd >= 0 && l.forget(s, fd)
}

// release frees all slots of a service.
func (l *Loop) release(s *Service) {
	l.forget(s, -1)
	for i := range s.count {
		if id := s.base + uint32(i); l.slots.at(id).fd >= 0 {
			l.drop(s, id)
		}
	}
}

// drop frees a slot. It ends the interest unless another slot shares it.
func (l *Loop) drop(s *Service, id uint32) {
	sl := l.slots.at(id)
	fd, owned := sl.fd, sl.state == owner
	if owned {
		l.unlink(id)
	}
	*sl = slot{service: sl.service, fd: chained(s.free), gen: l.newGen()}
	s.free = int32(id - s.base)
	l.setUserData(id, nil)
	if owned {
		l.settle(fd)
	}
}

// dropFd frees the slot of a service that owns a descriptor, and its
// duplicates.
func (l *Loop) dropFd(s *Service, id uint32) {
	sl := l.slots.at(id)
	fd, doubled := sl.fd, sl.doubled
	l.drop(s, id)
	if !doubled {
		return
	}
	for i := range s.count {
		id := s.base + uint32(i)
		if sl := l.slots.at(id); sl.fd == fd && sl.state == duplicate {
			l.drop(s, id)
		}
	}
}

// condemn frees all slots of a service and marks their sockets for execute to close. It
// does not mark a number that belongs to another socket by now.
func (l *Loop) condemn(s *Service) {
	for i := range s.count {
		sl := l.slots.at(s.base + uint32(i))
		if sl.state != owner {
			continue
		}
		w := l.watches.at(uint32(sl.fd))
		if err := l.control(unix.EPOLL_CTL_MOD, sl.fd, w.gen, w.mask); isLost(err) {
			l.lose(sl.fd, err)
			continue
		}
		w.parked = false
		l.condemned = append(l.condemned, sl.fd)
	}
	l.release(s)
}

// execute closes the condemned sockets. If a handler runs, execute waits until the handler
// has returned and the loop has closed the sockets.
func (l *Loop) execute() {
	if len(l.condemned) == 0 {
		return
	}
	if l.running != nil {
		for before := l.executed; l.executed == before; {
			l.returned.Wait()
		}
		return
	}
	// Services that share a socket may each have condemned it. After it is closed
	// once, the number may belong to another socket.
	slices.Sort(l.condemned)
	l.condemned = slices.Compact(l.condemned)
	for _, fd := range l.condemned {
		if w := l.lookup(fd); w != nil && w.active { // other services have it
			_ = l.control(unix.EPOLL_CTL_DEL, fd, 0, 0)
			l.lose(fd, unix.EBADF)
		}
		l.closeSocket(int(fd))
	}
	l.condemned = l.condemned[:0]
	l.executed++
	l.returned.Broadcast()
}
