package socketservice

import (
	"slices"

	"golang.org/x/sys/unix"
)

// A simKernel is the part of Linux that the loop sees: descriptors, their ready events, and
// epoll with its queue. It never waits and has no goroutine.
type simKernel struct {
	open      map[int32]*simSocket
	polls     []*simEpoll
	batch     int
	meanwhile func() // what other goroutines do before wait returns
}

type simSocket struct {
	id    int   // unique
	ready int16 // all ready events, also those that nobody polls for
	file  bool  // a regular file, which cannot be polled
	news  int   // how often it became ready for another event
	dups  int   // further descriptors that keep it open
}

// An interest belongs to the open file, under the descriptor with which it was added.
type simInterest struct {
	sock *simSocket
	ev   unix.EpollEvent
	edge bool // something new since it was reported
}

type simEpoll struct {
	k        *simKernel
	queue    []*simInterest // all interests; wait moves those that it reports to the end
	reported map[int32]int16
	broken   bool // wait fails
	stolen   bool // the program has another file under its number
}

func newSimKernel(batch int) *simKernel {
	return &simKernel{open: map[int32]*simSocket{}, batch: batch}
}

func (k *simKernel) newPoller() (poller, error) {
	p := &simEpoll{k: k}
	k.polls = append(k.polls, p)
	return p, nil
}

// socket opens a socket with the lowest free number, as Linux does.
func (k *simKernel) socket(id int) int32 {
	for fd := int32(0); ; fd++ {
		if k.open[fd] == nil {
			k.open[fd] = &simSocket{id: id}
			return fd
		}
	}
}

// close closes a descriptor. The interests end with it unless a duplicate keeps the socket
// open.
func (k *simKernel) close(fd int32) {
	s := k.open[fd]
	delete(k.open, fd)
	if s == nil || s.dups > 0 {
		return
	}
	for _, p := range k.polls {
		p.queue = slices.DeleteFunc(p.queue, func(i *simInterest) bool { return i.sock == s })
	}
}

// set changes the ready events of a socket.
func (k *simKernel) set(s *simSocket, ready int16) {
	if ready&^s.ready != 0 {
		s.news++
	}
	for _, p := range k.polls {
		for n, i := range p.queue {
			if i.sock == s && ready&^s.ready != 0 {
				i.edge = true
				if s.ready&int16(i.ev.Events) == 0 { // it joins the queue now
					p.queue = append(slices.Delete(p.queue, n, n+1), i)
					break
				}
			}
		}
	}
	s.ready = ready
}

func (p *simEpoll) find(fd int32, s *simSocket) int {
	return slices.IndexFunc(p.queue, func(i *simInterest) bool { return i.sock == s && i.ev.Fd == fd })
}

func (p *simEpoll) control(op int, fd int, ev *unix.EpollEvent) error {
	if p.stolen {
		return errGone
	}
	s := p.k.open[int32(fd)]
	if s == nil {
		return unix.EBADF
	}
	at := p.find(int32(fd), s)
	switch {
	case s.file:
		return unix.EPERM
	case op == unix.EPOLL_CTL_ADD && at >= 0:
		return unix.EEXIST
	case op != unix.EPOLL_CTL_ADD && at < 0:
		return unix.ENOENT
	case op == unix.EPOLL_CTL_DEL:
		p.queue = slices.Delete(p.queue, at, at+1)
	case op == unix.EPOLL_CTL_MOD:
		p.queue[at].ev, p.queue[at].edge = *ev, true
	default:
		p.queue = append(p.queue, &simInterest{s, *ev, true})
	}
	return nil
}

func (p *simEpoll) wait(events []unix.EpollEvent) (n int, _ error) {
	p.reported = map[int32]int16{}
	if p.stolen {
		return 0, errGone
	}
	if p.broken {
		return 0, unix.EIO
	}
	var again []*simInterest
	for at := 0; at < len(p.queue) && n < min(p.k.batch, len(events)); {
		i := p.queue[at]
		fired := i.sock.ready & (int16(i.ev.Events) | unasked)
		if fired == 0 || i.ev.Events&unix.EPOLLET != 0 && !i.edge {
			at++
			continue
		}
		events[n] = i.ev
		events[n].Events = uint32(fired)
		n++
		i.edge = false
		if p.k.open[i.ev.Fd] == i.sock {
			p.reported[i.ev.Fd] = fired
		}
		p.queue = slices.Delete(p.queue, at, at+1)
		again = append(again, i)
	}
	p.queue = append(p.queue, again...)
	p.k.meanwhile()
	return n, nil
}

func (p *simEpoll) wake()        {}
func (p *simEpoll) intact() bool { return !p.stolen }
func (p *simEpoll) close() {
	p.k.polls = slices.DeleteFunc(p.k.polls, func(q *simEpoll) bool { return q == p })
}
