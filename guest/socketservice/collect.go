package socketservice

import "golang.org/x/sys/unix"

// collect turns the poller's events into calls. The scan starts at another
// socket in each round, so that none is always first; but where more are ready
// than one round takes, the kernel's queue has them in the order of their
// waiting, and that is kept. The mark is the newest generation at the time when
// the waiting began.
func (l *Loop) collect(events []unix.EpollEvent, mark uint32) {
	l.ready, l.at = l.ready[:0], 0
	n, start := uint(len(events)), uint(0)
	full := len(events) == len(l.events)
	if n > 1 && !full && !l.full {
		start = l.scan % n
		l.scan++
	}
	l.full = full
	for i := range n {
		ev := &events[(start+i)%n]
		fd, fired := ev.Fd, ev.Events
		w := l.lookup(fd)
		if w == nil || !w.active || w.gen != uint32(ev.Pad) {
			// An interest that was removed during the wait may still
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
		if parked := fired&uint32(w.mask) == 0; parked != w.parked {
			w.parked = parked
			l.ev = w.interest(fd)
			if err := l.poller.control(unix.EPOLL_CTL_MOD, int(fd), &l.ev); err != nil {
				l.dirty = true
			}
		}
		for n := 0; ; n++ {
			id, ok := l.holder(fd, w, n)
			if !ok {
				break
			}
			sl := l.slots.at(id)
			if int32(sl.gen-mark) > 0 && int32(w.gen-mark) <= 0 {
				continue // it came during the wait: perhaps after the event
			}
			if revents := int16(fired) & (sl.events&pollable | unasked); revents != 0 {
				l.ready = append(l.ready, call{id, sl.gen, revents})
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
	round := uint8(l.round)
	if round-w.round > quiet {
		w.fires = 0
	}
	w.round = round
	w.fires++
	if w.fires%checkEvery != 2 || w.parked {
		return true
	}
	l.ev = w.interest(fd)
	if err := l.poller.control(unix.EPOLL_CTL_MOD, int(fd), &l.ev); isLost(err) {
		l.dirty = true // the interest can not be removed
		l.lose(fd, err)
		return false
	}
	return true
}
