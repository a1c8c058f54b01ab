package socketservice

import (
	"golang.org/x/sys/unix"
)

// pollable are the events that can be asked for. Error and hang-up come
// unasked; poll's and epoll's numbers are the same.
const (
	pollable = unix.EPOLLIN | unix.EPOLLPRI | unix.EPOLLOUT | unix.EPOLLRDHUP |
		unix.EPOLLRDNORM | unix.EPOLLRDBAND | unix.EPOLLWRNORM | unix.EPOLLWRBAND | unix.EPOLLMSG
	unasked = unix.POLLERR | unix.POLLHUP
)

// A slot is one place for a socket in a service. It is 48 bytes, and with its
// watch the whole price of a socket.
type slot struct {
	service *Service
	next    *slot // the slot of another service that holds the same socket
	data    any
	fd      int32 // -1: free
	gen     uint32
	events  int16
	state   slotState
}

type slotState uint8

const (
	free      slotState = iota
	owner               // is in its watch's list and gets the events
	duplicate           // an earlier slot of the service has the same descriptor
	invalid             // the descriptor is not open; POLLNVAL is on its way
)

// A watch is the poller's interest in one descriptor, on behalf of the slots
// that hold it. Epoll has one interest for each descriptor, poll(2) one for
// each entry.
type watch struct {
	first  *slot
	gen    uint32 // of the interest; changes whenever the interest does
	mask   uint32 // the events polled for
	active bool   // the kernel has this interest
	parked bool   // edge-triggered: see collect

	plan    uint32 // the call of replace that has seen the descriptor
	planned int32  // the index of its first slot in that call

	round uint32 // the last in which it fired
	fires uint32 // since it was last quiet
}

// wanted returns the events that the holders ask for, those of except left
// out.
func (w *watch) wanted(except *Service) uint32 {
	var mask int16
	for sl := w.first; sl != nil; sl = sl.next {
		if sl.service != except {
			mask |= sl.events
		}
	}
	return uint32(mask & pollable)
}

// link adds a slot to the end of its watch's list: the service that came first
// is called first.
func (l *Loop) link(sl *slot) {
	at := &l.watches[sl.fd].first
	for *at != nil {
		at = &(*at).next
	}
	sl.next = nil
	*at = sl
}

func (l *Loop) unlink(sl *slot) {
	at := &l.watches[sl.fd].first
	for *at != sl {
		at = &(*at).next
	}
	*at = sl.next
	sl.next = nil
}

// lookup returns the watch of a descriptor, or nil if it never had one.
func (l *Loop) lookup(fd int32) *watch {
	if fd < 0 || int(fd) >= len(l.watches) {
		return nil
	}
	return &l.watches[fd]
}

// settled notes an interest that the kernel has accepted.
func (l *Loop) settled(fd int32, gen, mask uint32) *watch {
	if int(fd) >= len(l.watches) {
		l.watches = append(l.watches, make([]watch, int(fd)+1-len(l.watches))...)
	}
	w := &l.watches[fd]
	w.gen, w.mask, w.active, w.parked = gen, mask, true, false
	return w
}

// newGen returns a generation that no interest and no slot has.
func (l *Loop) newGen() uint32 {
	l.seq++
	return l.seq
}

// control calls the poller, after replacing it if it is gone.
func (l *Loop) control(op int, fd int32, gen, mask uint32) error {
	l.ev = interest(fd, gen, mask)
	err := l.poller.control(op, int(fd), &l.ev)
	if err == errGone {
		if err := l.rebuild(); err != nil {
			return err
		}
		l.ev = interest(fd, gen, mask)
		err = l.poller.control(op, int(fd), &l.ev)
	}
	return err
}

// arm makes the interest in a descriptor what it is to be. On failure the
// interest is what it was, unless the socket behind the descriptor is another
// or none: then its former holders have lost it.
func (l *Loop) arm(fd int32, mask uint32, except *Service) (*watch, error) {
	gen := l.newGen()
	if w := l.lookup(fd); w != nil && w.active {
		err := l.control(unix.EPOLL_CTL_MOD, fd, gen, mask|w.wanted(except))
		if err == nil {
			return l.settled(fd, gen, mask|w.wanted(except)), nil
		}
		if err != unix.ENOENT && err != unix.EBADF {
			return nil, err
		}
		l.lose(fd, err)
		if err == unix.EBADF {
			return nil, err
		}
		// The number belongs to a new socket: the kernel's interest was
		// in the former one, which was closed without being unregistered.
	}
	err := l.control(unix.EPOLL_CTL_ADD, fd, gen, mask)
	if err == unix.EEXIST {
		err = l.control(unix.EPOLL_CTL_MOD, fd, gen, mask)
	}
	if err != nil {
		return nil, err
	}
	return l.settled(fd, gen, mask), nil
}

// settle brings the interest in line with the holders that are left.
func (l *Loop) settle(fd int32) {
	w := &l.watches[fd]
	mask := w.wanted(nil)
	switch {
	case !w.active:
	case w.first == nil:
		// An error says that the socket was closed and the interest
		// went with it. Where a duplicate of the descriptor keeps it
		// alive, its events give it away: see collect.
		_ = l.control(unix.EPOLL_CTL_DEL, fd, 0, 0)
		w.active = false
		w.gen = l.newGen()
	case mask != w.mask:
		if _, err := l.arm(fd, mask, nil); err != nil && w.active {
			w.mask = mask
			l.renew()
		}
	}
}

// lose takes from the holders of a descriptor the socket that is no longer
// behind it. After EBADF, when nothing is, their handlers are told. After
// ENOENT the number belongs to somebody else: a handler that is told could
// close it.
func (l *Loop) lose(fd int32, err error) {
	w := &l.watches[fd]
	w.active = false
	w.gen = l.newGen()
	for w.first != nil {
		sl := w.first
		l.unlink(sl)
		if err == unix.EBADF {
			sl.state = invalid
			l.tell(sl)
		} else {
			sl.state = free
			l.dropFd(sl.service, fd)
		}
	}
}

// tell has POLLNVAL delivered for a slot.
func (l *Loop) tell(sl *slot) {
	l.invalid = append(l.invalid, sl)
	l.poller.wake()
}

// renew has the loop build the kernel's set anew before its next round.
func (l *Loop) renew() {
	l.dirty = true
	l.poller.wake()
}

// rebuild replaces the poller by a new one with the same interests. It is the
// cure for whatever went wrong with the old one, and the only way to be rid of
// an interest whose descriptor is closed while a duplicate of it is open:
// epoll's interest is in the open file, and it is removed by the descriptor.
func (l *Loop) rebuild() error {
	p, err := l.newPoller()
	if err != nil {
		return err
	}
	old := l.poller
	l.poller = p
	l.retired = append(l.retired, old)
	old.wake() // the loop may be waiting on it
	l.dirty = false
	for i := range l.watches {
		w, fd := &l.watches[i], int32(i)
		if !w.active {
			continue
		}
		l.ev = w.interest(fd)
		// The old poller still knows whether the number has gone to
		// another socket.
		if err := old.control(unix.EPOLL_CTL_MOD, i, &l.ev); err == unix.ENOENT {
			l.lose(fd, err)
			continue
		}
		l.ev = w.interest(fd)
		switch err := p.control(unix.EPOLL_CTL_ADD, i, &l.ev); err {
		case nil:
		case unix.EBADF, unix.EPERM:
			l.lose(fd, err)
		default:
			l.dirty = true
			return err
		}
	}
	return nil
}

func (w *watch) interest(fd int32) unix.EpollEvent {
	mask := w.mask
	if w.parked {
		mask |= unix.EPOLLET
	}
	return interest(fd, w.gen, mask)
}
