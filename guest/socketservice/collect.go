package socketservice

import "golang.org/x/sys/unix"

// collect turns the poller's events into calls. It starts at another event in each
// round, so that no socket is always first. If more sockets are ready than fit into
// one round, collect keeps the order of the kernel's queue, in which the socket that
// has waited longest comes first. The mark is the newest generation at the start of
// the wait.
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
			// fire once. If an interest fires that was removed before
			// the wait, its descriptor is closed, but a duplicate of the
			// descriptor is open. Only a new poller gets rid of it.
			if w == nil || int32(w.gen-mark) <= 0 {
				l.dirty = true
			}
			continue
		}
		if !l.verify(fd, w) {
			continue
		}
		// An error or a hang-up lasts until the socket is closed. If the
		// handler neither reads the error nor removes the socket, the
		// loop calls it again only at the socket's next change, and not
		// in every round (Zephyr #111912).
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
				continue // the slot was filled during the wait, perhaps after the event
			}
			if revents := int16(fired) & (sl.events&pollable | unasked); revents != 0 {
				l.ready = append(l.ready, call{id, sl.gen, revents})
			}
		}
	}
}

// verify reports whether the socket that fired is still behind its descriptor. If a
// program closes a socket without unregistering it, the kernel forgets the socket,
// unless a duplicate of the descriptor keeps it open. Then the socket fires in every
// round, and no read ends that (Zephyr #82652). The check costs a system call, so
// verify checks only sockets that fire in successive rounds, and only now and then.
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
		l.dirty = true // the interest cannot be removed
		l.lose(fd, err)
		return false
	}
	return true
}
