package socketservice

import (
	"errors"
	"slices"

	"golang.org/x/sys/unix"
)

// A model describes what the loop must do: which sockets each service has, for which sockets
// the loop may call a handler, and which sockets it must not pass over. Unlike the loop, the
// model has neither generations nor watches.
type model struct {
	k        *simKernel
	services []*modelService
	round    int                // the number of the newest round
	served   map[*simSocket]int // the last round that served the socket
	doomed   []*simSocket       // the loop closes these when the running handler has returned
}

type modelService struct {
	slots int
	has   []*modelSocket
	calls uint64
}

type modelSocket struct {
	fd                 int32
	sock               *simSocket // nil if the descriptor was not open
	events             int16
	data               int
	since, called      int                // the rounds of the registration and of the newest call
	surplus, news      int                // successive calls without news; the socket's news at the newest call
	duplicate, waiting bool               // waiting: ready since the beginning of some round
	passed             map[*simSocket]int // while it waits, how often the loop served each other socket
	owed               bool               // the loop knows that the socket is lost, and still has to call with POLLNVAL
	owedSince          int                // the round in which owed became true
	excused            int                // the round in which a call from outside waited
}

// lost reports whether other code has closed the descriptor.
func (m *model) lost(h *modelSocket) bool { return h.sock == nil || m.k.open[h.fd] != h.sock }

// pollable notes that the loop polls a descriptor: services that had an older socket under
// its number have lost that socket.
func (m *model) pollable(fd int32) bool {
	if m.k.open[fd] == nil || m.k.open[fd].file {
		return false
	}
	for _, s := range m.services {
		s.has = slices.DeleteFunc(s.has, func(h *modelSocket) bool { return h.fd == fd && m.lost(h) && !h.owed })
	}
	return true
}

func (m *model) register(s *modelService, set []Socket) (ok bool) {
	var has []*modelSocket
	for _, p := range set {
		if len(set) > s.slots || p.Fd >= 0 && !m.pollable(p.Fd) && m.k.open[p.Fd] != nil {
			return false
		}
		h := &modelSocket{fd: p.Fd, sock: m.k.open[p.Fd], events: p.Events, data: p.UserData.(int), since: m.round}
		if first := find(has, p.Fd); first != nil {
			h.duplicate = true
			first.events |= p.Events
		}
		if p.Fd >= 0 {
			has = append(has, h)
		}
	}
	s.has = has
	return true
}

func (m *model) add(s *modelService, fd int32, events int16, data int) (ok bool) {
	taken := 0 // lost sockets need no slot
	for _, h := range s.has {
		if !m.lost(h) {
			taken++
		}
	}
	if h := find(s.has, fd); (h == nil || h.owed) && taken == s.slots || !m.pollable(fd) {
		return false
	}
	// A pending POLLNVAL for the descriptor would now seem to mean the new socket.
	s.has = slices.DeleteFunc(s.has, func(h *modelSocket) bool { return h.fd == fd && h.owed })
	if find(s.has, fd) == nil {
		s.has = append(s.has, &modelSocket{fd: fd, sock: m.k.open[fd]})
	}
	h := find(s.has, fd)
	h.events, h.data, h.since, h.surplus, h.waiting = events, data, m.round, 0, false
	return true
}

func (m *model) remove(s *modelService, fd int32) (ok bool) {
	ok = find(s.has, fd) != nil
	s.has = slices.DeleteFunc(s.has, func(h *modelSocket) bool { return h.fd == fd })
	return ok
}

func (m *model) close(s *modelService) {
	for _, h := range s.has {
		if !m.lost(h) && !h.duplicate {
			m.doomed = append(m.doomed, h.sock)
		}
	}
	s.has = nil
}

// call checks a handler's call; fired holds the events of this round.
func (m *model) call(s *modelService, ev *Event, fired map[int32]int16) error {
	h := find(s.has, ev.Fd)
	if h == nil || ev.UserData != h.data {
		return errors.New("for a socket that the service does not have")
	}
	lost := m.lost(h)
	if ev.Revents&unix.POLLNVAL != 0 && lost {
		m.remove(s, ev.Fd)
		return nil
	}
	if h.owed {
		return errors.New("stale: the loop knows that the socket is lost")
	}
	if h.surplus++; !lost && (h.news != h.sock.news || ev.Revents&^unasked != 0) {
		h.news, h.surplus = h.sock.news, 0
	}
	again, early := m.served[h.sock] == m.round, max(h.since, h.called) == m.round
	m.served[h.sock], h.called, h.waiting = m.round, m.round, false
	for w := range m.all() {
		if w.waiting && w.sock != h.sock && !lost && !again { // again: the call is for another service that has the socket too
			if w.passed[h.sock]++; w.passed[h.sock] > 1 {
				return errors.New("starvation: a socket is served twice before another that is ready")
			}
		}
	}
	switch {
	case early:
		return errors.New("stale: registered or called in this very round")
	case h.surplus > checkEvery:
		return errors.New("the loop spins on a socket that is closed or hung up")
	case !lost && ev.Revents != fired[ev.Fd]&(h.events|unasked):
		return errors.New("other events than those that fired")
	}
	return nil
}

// begin notes the ready sockets at the beginning of a round.
func (m *model) begin() {
	m.round++
	for h := range m.all() {
		if !h.waiting {
			h.passed = map[*simSocket]int{}
		}
		h.waiting = !m.lost(h) && !h.duplicate && h.sock.ready&h.events != 0
	}
}

// end checks a round: the handler was called for every socket for which it could be.
func (m *model) end(fired map[int32]int16) error {
	for h := range m.all() {
		if h.owed && h.owedSince < m.round && h.excused < m.round {
			return errors.New("lost: a POLLNVAL was not delivered")
		}
		if h.excused < m.round && !m.lost(h) && !h.duplicate && h.since < m.round && h.called < m.round && fired[h.fd]&(h.events|unasked) != 0 {
			return errors.New("lost: an event was not delivered")
		}
	}
	return nil
}
