package socketservice

import "golang.org/x/sys/unix"

// pollable are the events that a service can ask for. The kernel reports error and
// hang-up unasked. The events have the same numbers in poll and epoll.
const (
	pollable = unix.EPOLLIN | unix.EPOLLPRI | unix.EPOLLOUT | unix.EPOLLRDHUP |
		unix.EPOLLRDNORM | unix.EPOLLRDBAND | unix.EPOLLWRNORM | unix.EPOLLWRBAND | unix.EPOLLMSG
	unasked = unix.POLLERR | unix.POLLHUP
)

// A slot is one place for a socket in a service. Its ID is its index in the loop's
// table. User data is in a table of its own: most idle sockets have none, and the
// garbage collector skips slots, because they hold no pointers.
type slot struct {
	fd      int32 // negative: free, and the rest of the chain; see chained
	gen     uint32
	service uint32 // the index of the service
	events  int16
	state   slotState
	doubled bool // owner: duplicates of it exist
}

// userData returns the user data of a slot, or nil.
func (l *Loop) userData(id uint32) any {
	if data := l.data.find(id); data != nil {
		return *data
	}
	return nil
}

func (l *Loop) setUserData(id uint32, data any) {
	if data != nil {
		l.data.reach(id)
		*l.data.at(id) = data
	} else if old := l.data.find(id); old != nil {
		*old = nil
	}
}

type slotState uint8

const (
	free      slotState = iota
	owner               // holds its watch and gets the events
	duplicate           // an earlier slot of the service has the same descriptor
	invalid             // of replace alone: the descriptor is not open
)

// chained returns the fd of a free slot, which encodes the service's next free slot by
// its place among the service's slots.
func chained(next int32) int32 { return -2 - next }

// A watch is the poller's interest in one descriptor, on behalf of all slots that hold
// it: epoll has one interest for each descriptor, while poll(2) has one for each entry.
type watch struct {
	gen    uint32 // of the interest; it changes with the socket
	first  uint32 // the ID of the first holder plus one; 0 if there is none
	mask   uint16 // the events that are polled for
	shared bool   // there are more holders: Loop.shared has them
	active bool   // the kernel has this interest
	parked bool   // edge-triggered: see collect

	round uint8 // the last round in which it fired, modulo 256
	fires uint8 // how often since it was last quiet, modulo 256
}

// holder returns the ID of the nth slot that holds the descriptor.
func (l *Loop) holder(fd int32, w *watch, n int) (id uint32, ok bool) {
	if n == 0 {
		return w.first - 1, w.first != 0
	}
	if !w.shared || n > len(l.shared[fd]) {
		return 0, false
	}
	return l.shared[fd][n-1], true
}

// holding returns the slot of a service that holds the descriptor.
func (l *Loop) holding(s *Service, fd int32) (id uint32, ok bool) {
	w := l.lookup(fd)
	if w == nil {
		return 0, false
	}
	for n := 0; ; n++ {
		id, ok := l.holder(fd, w, n)
		if !ok || id-s.base < uint32(s.count) {
			return id, ok
		}
	}
}

// wanted returns the events that the holders ask for, other than those of except.
func (l *Loop) wanted(fd int32, w *watch, except *Service) uint16 {
	var mask int16
	for n := 0; ; n++ {
		id, ok := l.holder(fd, w, n)
		if !ok {
			return uint16(mask & pollable)
		}
		if sl := l.slots.at(id); except == nil || l.services.at(sl.service) != except {
			mask |= sl.events
		}
	}
}

// link adds a slot to the end of its watch's holders, so that the service that came first
// is called first.
func (l *Loop) link(id uint32) {
	fd := l.slots.at(id).fd
	w := l.watches.at(uint32(fd))
	if w.first == 0 {
		w.first = id + 1
		return
	}
	w.shared = true
	l.shared[fd] = append(l.shared[fd], id)
}

func (l *Loop) unlink(id uint32) {
	fd := l.slots.at(id).fd
	w := l.watches.at(uint32(fd))
	if !w.shared {
		w.first = 0
		return
	}
	others := l.shared[fd]
	if w.first == id+1 {
		w.first = others[0] + 1
		id = others[0]
	}
	n := 0
	for _, o := range others {
		if o != id {
			others[n] = o
			n++
		}
	}
	l.shared[fd] = others[:n]
	if n == 0 {
		w.shared = false
		delete(l.shared, fd)
	}
}

// lookup returns the watch of a descriptor, or nil if it never had one.
func (l *Loop) lookup(fd int32) *watch {
	if fd < 0 {
		return nil
	}
	return l.watches.find(uint32(fd))
}

// settled notes an interest that the kernel has accepted.
func (l *Loop) settled(fd int32, gen uint32, mask uint16) {
	l.watches.reach(uint32(fd))
	w := l.watches.at(uint32(fd))
	w.gen, w.mask, w.active, w.parked = gen, mask, true, false
}

// newGen returns a new generation, which no interest and no slot has.
func (l *Loop) newGen() uint32 {
	l.seq++
	return l.seq
}

// control calls the poller. If the poller is gone, it replaces it and tries again.
func (l *Loop) control(op int, fd int32, gen uint32, mask uint16) error {
	l.ev = interest(fd, gen, uint32(mask))
	err := l.poller.control(op, int(fd), &l.ev)
	if err == errGone {
		if err := l.rebuild(); err != nil {
			return err
		}
		l.ev = interest(fd, gen, uint32(mask))
		err = l.poller.control(op, int(fd), &l.ev)
	}
	return err
}

// arm sets the interest in a descriptor to mask, plus the events that its holders other than
// except ask for. If arm fails, the interest is unchanged, with one exception: if the socket
// behind the descriptor was closed or replaced, the former holders have lost it.
func (l *Loop) arm(fd int32, mask uint16, except *Service) error {
	if w := l.lookup(fd); w != nil && w.active {
		all, gen := mask|l.wanted(fd, w, except), w.gen
		if !w.shared && (except == nil || w.first-1-except.base < uint32(except.count)) {
			gen = l.newGen() // no other service needs the pending events
		}
		err := l.control(unix.EPOLL_CTL_MOD, fd, gen, all)
		if err == nil {
			l.settled(fd, gen, all)
			return nil
		}
		if !isLost(err) {
			return err
		}
		l.lose(fd, err)
		if err == unix.EBADF {
			return err
		}
		// The number belongs to a new socket. The kernel's interest was in the
		// former one, which was closed without being unregistered.
	}
	gen := l.newGen()
	err := l.control(unix.EPOLL_CTL_ADD, fd, gen, mask)
	if err == unix.EEXIST {
		err = l.control(unix.EPOLL_CTL_MOD, fd, gen, mask)
	}
	if err == nil {
		l.settled(fd, gen, mask)
	}
	return err
}

// settle adapts the interest to the remaining holders.
func (l *Loop) settle(fd int32) {
	w := l.watches.at(uint32(fd))
	switch {
	case !w.active:
	case w.first == 0:
		// An error says that the socket was closed, and the interest
		// with it. If a duplicate of the descriptor keeps the interest
		// alive, collect notices its events.
		_ = l.control(unix.EPOLL_CTL_DEL, fd, 0, 0)
		w.active = false
		w.gen = l.newGen()
	default:
		mask := l.wanted(fd, w, nil)
		if mask == w.mask {
			return
		}
		switch err := l.control(unix.EPOLL_CTL_MOD, fd, w.gen, mask); {
		case err == nil:
			l.settled(fd, w.gen, mask)
		case isLost(err):
			l.lose(fd, err)
		default:
			w.mask = mask
			l.renew()
		}
	}
}

// isLost reports whether the error of changing an interest says that the socket of the
// interest is no longer behind the descriptor. The descriptor is closed (EBADF), or belongs
// to another file, which is not polled (ENOENT) or cannot be polled (EPERM).
func isLost(err error) bool {
	return err == unix.EBADF || err == unix.ENOENT || err == unix.EPERM
}

// renew makes the loop rebuild the kernel's set before its next round.
func (l *Loop) renew() {
	l.dirty = true
	l.poller.wake()
}

// rebuild replaces the poller by a new one with the same interests, without the faults of
// the old one. It is also the only way to remove an interest whose descriptor is closed
// while a duplicate of it is open: epoll keeps an interest as long as the file is open, but
// removes it only by its descriptor.
func (l *Loop) rebuild() error {
	p, err := l.newPoller()
	if err != nil {
		return err
	}
	old := l.poller
	known := old.intact()
	l.robbed = l.robbed || !known
	l.poller = p
	l.retired = append(l.retired, old)
	old.wake() // the loop may be waiting on it
	l.dirty = false
	for i := range uint32(len(l.watches.chunks) * chunk) {
		w, fd := l.watches.find(i), int32(i)
		if w == nil || !w.active {
			continue
		}
		if known {
			// The old poller still knows whether the number belongs to
			// another socket now. A poller whose own descriptor was
			// closed cannot tell.
			l.ev = w.interest(fd)
			if err := old.control(unix.EPOLL_CTL_MOD, int(fd), &l.ev); isLost(err) {
				l.lose(fd, err)
				continue
			}
		}
		l.ev = w.interest(fd)
		if err := p.control(unix.EPOLL_CTL_ADD, int(fd), &l.ev); isLost(err) {
			l.lose(fd, err)
		} else if err != nil {
			l.dirty = true
			return err
		}
	}
	return nil
}

func (w *watch) interest(fd int32) unix.EpollEvent {
	mask := uint32(w.mask)
	if w.parked {
		mask |= unix.EPOLLET
	}
	return interest(fd, w.gen, mask)
}
