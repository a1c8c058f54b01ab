package socketservice

import (
	"slices"

	"golang.org/x/sys/unix"
)

// compare requires that the services have the model's sockets, and that the kernel is asked
// for exactly the events that they want.
func (q *sequence) compare() {
	if q.err != nil {
		return
	}
	for i, ms := range q.m.services {
		q.l.mu.Lock()
		got := q.l.occupied(q.services[i])
		told := map[Socket]bool{}
		for _, n := range q.l.losses {
			if n.service == q.services[i] {
				told[Socket{n.PollFd, n.data}] = true
			}
		}
		q.l.mu.Unlock()
		ms.has = slices.DeleteFunc(ms.has, func(h *modelSocket) bool {
			sock := Socket{unix.PollFd{Fd: h.fd, Events: h.events}, h.data}
			if at := slices.Index(got, sock); at >= 0 && !h.owed {
				got = slices.Delete(got, at, at+1)
				return false
			}
			sock.Revents = unix.POLLNVAL
			switch {
			case !q.m.lost(h):
				q.fail("service %d does not have socket %d", i, h.fd)
			case told[sock]: // the loop has found out
				delete(told, sock)
				if !h.owed {
					h.owed, h.owedSince = true, q.m.round
				}
				return false
			case h.duplicate:
			case h.owed || q.k.open[h.fd] == nil:
				q.fail("service %d has lost socket %d without a call", i, h.fd)
			}
			return true
		})
		if len(told) > 0 {
			q.fail("service %d is told of %v", i, told)
		}
		if len(got) > 0 {
			q.fail("service %d has %v", i, got)
		}
		if st := q.services[i].Stats(); q.l.running == nil && st.Calls != ms.calls {
			q.fail("service %d counts %d calls, want %d", i, st.Calls, ms.calls)
		}
	}
	p := q.l.poller.(*simEpoll)
	for fd, s := range q.k.open {
		want, wanted := int16(0), false
		for h := range q.m.all() {
			if h.fd == fd && h.sock == s && !h.duplicate {
				want, wanted = want|h.events, true
			}
		}
		at := p.find(fd, s)
		if wanted != (at >= 0) || wanted && int16(p.queue[at].ev.Events) != want {
			q.fail("socket %d: the kernel is not asked for %#x (wanted: %v)", fd, want, wanted)
		}
	}
}
