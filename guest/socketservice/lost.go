package socketservice

import (
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// A program can close a socket that a service still has. Epoll does not report that:
// it drops the interest, or keeps it while a duplicate of the descriptor is open. So
// the loop checks sockets. It checks a service's sockets when Sockets lists them and
// when Add finds no free slot, and some sockets of all services every second.
const (
	sweepBatch = 128 // sockets, about 0.3 µs each
	sweepReach = 4096
)

var sweepEvery = time.Second // shorter in tests

// A loss is a socket that was closed while a service had it. Its slot is free. The loop
// still has to call the handler with POLLNVAL.
type loss struct {
	serial  uint64
	service *Service
	unix.PollFd
	data any
}

// lose frees the slots that hold a descriptor whose socket was closed. If the error is
// EBADF, no file is behind the descriptor, and lose arranges the handlers' calls with
// POLLNVAL. Otherwise the number belongs to another file, which a handler could close by
// mistake.
func (l *Loop) lose(fd int32, err error) {
	w := l.watches.at(uint32(fd))
	w.active = false
	w.gen = l.newGen()
	for w.first != 0 {
		id := w.first - 1
		sl := l.slots.at(id)
		s := l.services.at(sl.service)
		if err == unix.EBADF {
			l.tell(s, unix.PollFd{Fd: fd, Events: sl.events}, l.userData(id))
		}
		l.unlink(id)
		sl.state = free
		l.dropFd(s, id)
	}
}

// tell makes the loop call a service's handler with POLLNVAL, in this round or in the next.
func (l *Loop) tell(s *Service, p unix.PollFd, data any) {
	p.Revents = unix.POLLNVAL
	l.lost++
	l.losses = append(l.losses, loss{l.lost, s, p, data})
	l.poller.wake()
}

// tellLosses makes the calls with POLLNVAL. It leaves losses that occur during these calls
// to the next round, because a handler can register another closed socket in each call,
// and the round would never end.
func (l *Loop) tellLosses(begin time.Duration) (end time.Duration) {
	told, newest := uint64(0), l.lost
	for l.state == running {
		// The calls change the list.
		i := slices.IndexFunc(l.losses, func(n loss) bool { return n.serial > told })
		if i < 0 || l.losses[i].serial > newest {
			break
		}
		n := l.losses[i]
		told = n.serial
		if l.quiescing[n.service] > 0 {
			l.poller.wake() // for the next round
			continue
		}
		if i == 0 {
			l.losses[0] = loss{}
			l.losses = l.losses[1:]
		} else {
			l.losses = slices.Delete(l.losses, i, i+1)
		}
		l.event = Event{PollFd: n.PollFd, UserData: n.data, Service: n.service}
		begin = l.call(call{slot: n.service.base, revents: unix.POLLNVAL}, begin)
	}
	return begin
}

// forget drops a service's pending losses of one descriptor, or all its pending losses if
// fd is negative. It reports whether there were any.
func (l *Loop) forget(s *Service, fd int32) bool {
	before := len(l.losses)
	if before == 0 {
		return false
	}
	l.losses = slices.DeleteFunc(l.losses, func(n loss) bool { return n.service == s && (fd < 0 || n.Fd == fd) })
	return len(l.losses) < before
}

// probe returns why the socket of an active watch is lost, or nil if it is not lost. It
// tries to add the interest, which epoll refuses if it has the interest. Unlike a
// modification, this attempt does not make epoll report an error or a hang-up again.
func (l *Loop) probe(fd int32) error {
	err := l.control(unix.EPOLL_CTL_ADD, fd, 0, 0)
	if err == nil {
		_ = l.control(unix.EPOLL_CTL_DEL, fd, 0, 0)
		return unix.ENOENT
	}
	if isLost(err) {
		return err
	}
	return nil
}

// inspect runs every sweepEvery, on a goroutine of its own, because a timeout of the poller
// would cost a timer for each wait.
func (l *Loop) inspect() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.poller == nil {
		return // the loop has ended
	}
	switch {
	case l.state != running:
	case l.poller.intact():
		l.sweep()
	default:
		if err := l.rebuild(); err != nil {
			l.renew() // the loop tries again and logs it
		} else {
			l.poller.wake() // the loop logs the replacement at once, even if no socket is ready
		}
	}
	if l.waitsOn != nil && (l.waitsOn != l.poller || l.state != running) {
		l.waitsOn.wake() // an earlier wake may have failed
	}
	if l.inspector != nil {
		l.inspector.Reset(sweepEvery)
	}
}

// sweep checks the next sockets for losses.
func (l *Loop) sweep() {
	all := uint32(len(l.watches.chunks) * chunk)
	for left, scanned := sweepBatch, uint32(0); left > 0 && scanned < min(all, sweepReach); scanned++ {
		if l.sweepAt >= all {
			l.sweepAt = 0
		}
		fd := l.sweepAt
		w := l.watches.find(fd)
		if w == nil {
			l.sweepAt = (fd/chunk + 1) * chunk
			continue
		}
		l.sweepAt++
		if w.active {
			left--
			if err := l.probe(int32(fd)); err != nil {
				l.lose(int32(fd), err)
			}
		}
	}
}

// sweepService checks the sockets of one service.
func (l *Loop) sweepService(s *Service) {
	for i := range s.count {
		sl := l.slots.at(s.base + uint32(i))
		if sl.state != owner {
			continue
		}
		fd := sl.fd
		if err := l.probe(fd); err != nil && sl.state == owner && sl.fd == fd {
			l.lose(fd, err)
		}
	}
}
