package socketservice

import (
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// A program can close a socket that a service still has, and epoll says nothing:
// it drops the interest, or goes on with it while a duplicate of the descriptor is
// open. So the loop looks: when somebody asks for a service's sockets, when a slot
// is wanted and none is free, and of itself, a few sockets every second.
const (
	sweepBatch = 128 // sockets, about 0.3 µs each
	sweepReach = 4096
)

var sweepEvery = time.Second // less in tests

// A loss is a socket that was closed while a service had it. The service has no
// slot for it any more; its handler has still to be called with POLLNVAL.
type loss struct {
	serial  uint64
	service *Service
	unix.PollFd
	data any
}

// lose takes from the holders of a descriptor the socket that is no longer
// behind it. After EBADF, when nothing is, their handlers are told. Else the
// number belongs to somebody else: a handler that is told could close it.
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

// tell has a service's handler called with POLLNVAL in the round that runs or
// else the next.
func (l *Loop) tell(s *Service, p unix.PollFd, data any) {
	p.Revents = unix.POLLNVAL
	l.lost++
	l.losses = append(l.losses, loss{l.lost, s, p, data})
	l.poller.wake()
}

// tellLosses makes the calls with POLLNVAL, as dispatch makes the others. What is lost
// during these calls is told in the next round: a handler can answer each of them with
// the registration of another closed socket.
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

// forget drops what a service has still to be told, of one descriptor or, if it
// is negative, of all. It reports whether there was anything.
func (l *Loop) forget(s *Service, fd int32) bool {
	before := len(l.losses)
	if before == 0 {
		return false
	}
	l.losses = slices.DeleteFunc(l.losses, func(n loss) bool { return n.service == s && (fd < 0 || n.Fd == fd) })
	return len(l.losses) < before
}

// probe says why the socket of an active watch is lost, or nil. Epoll refuses to
// add what it has already; unlike a modification this does not report again an
// error or a hang-up that its handler was told of.
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

// inspect is called every sweepEvery, on a goroutine of its own: a timeout of the
// poller would cost each wait a timer.
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
			l.renew() // the loop tries again, and says so
		}
	}
	if l.waitsOn != nil && (l.waitsOn != l.poller || l.state != running) {
		l.waitsOn.wake() // a wake may have come to nothing
	}
	if l.inspector != nil {
		l.inspector.Reset(sweepEvery)
	}
}

// sweep looks for lost sockets, at some after the other.
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

// sweepService looks at the sockets of one service.
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
