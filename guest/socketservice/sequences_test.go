package socketservice

import (
	"flag"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// A sequence runs a program, in which each byte is a choice, on a loop over the
// simulated kernel and on the model beside it. The loop has no goroutine: the
// sequence turns it itself, so that the same program always does the same.
type sequence struct {
	program  []byte
	k        *simKernel
	l        *Loop
	m        *model
	services []*Service
	ids      int
	waited   *simEpoll // in the round that runs
	trace    []string
	err      error
}

const numbers = 8 // descriptors that a program names

// all lists the sockets of all services.
func (m *model) all() iter.Seq[*modelSocket] {
	return func(yield func(*modelSocket) bool) {
		for _, s := range m.services {
			for _, h := range s.has {
				if !yield(h) {
					return
				}
			}
		}
	}
}

// find returns the socket of a descriptor that is not a duplicate.
func find(has []*modelSocket, fd int32) *modelSocket {
	i := slices.IndexFunc(has, func(h *modelSocket) bool { return h.fd == fd && !h.duplicate })
	if i < 0 {
		return nil
	}
	return has[i]
}

// choose takes a number below n from the program.
func (q *sequence) choose(n int) int {
	if len(q.program) == 0 {
		return 0
	}
	b := q.program[0]
	q.program = q.program[1:]
	// Generators like small numbers. The same byte is another choice elsewhere.
	h := (uint32(b) + uint32(len(q.program))<<8) * 2654435761
	return int(h>>16) % n
}

func (q *sequence) note(format string, args ...any) {
	q.trace = append(q.trace, fmt.Sprintf(format, args...))
}

func (q *sequence) fail(format string, args ...any) {
	if q.err == nil {
		q.err = fmt.Errorf("%w\n%s", fmt.Errorf(format, args...), strings.Join(q.trace, "\n"))
	}
}

// run executes a program and returns in what the loop and the model differ.
func run(program []byte) error {
	q := &sequence{program: program}
	q.k = newSimKernel(1 + q.choose(4))
	q.m = &model{k: q.k, served: map[*simSocket]int{}}
	q.l = NewLoop(Config{PollMax: 64, Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
	q.l.newPoller = q.k.newPoller
	q.l.closeSocket = func(fd int) {
		if q.k.open[int32(fd)] == nil {
			q.fail("socket %d is closed twice", fd)
		}
		q.k.close(int32(fd))
	}
	q.l.events = make([]unix.EpollEvent, q.k.batch)
	q.k.meanwhile = func() {
		if q.choose(4) == 1 {
			q.act()
		}
	}
	q.define()
	if err := q.l.prepare(); err != nil {
		return err
	}
	q.l.state, q.l.goid = running, goid()
	close(q.l.started)
	for len(q.program) > 0 && q.err == nil {
		switch q.choose(24) {
		case 0:
			for range checkEvery + 4 { // enough to see whether it spins
				q.turn()
			}
		case 1, 2, 3, 4, 5, 6, 7, 8, 9:
			q.turn()
		default:
			q.act()
		}
		q.compare()
	}
	for range 3 {
		q.program = nil
		q.turn()
		q.compare()
	}
	return q.err
}

func (q *sequence) define() {
	if len(q.services) == 4 {
		return
	}
	n := 1 + q.choose(4)
	ms := &modelService{slots: n}
	q.services = append(q.services, q.l.Define("s", func(ev *Event) { q.handle(ms, ev) }, n))
	q.m.services = append(q.m.services, ms)
}

// turn runs one round.
func (q *sequence) turn() {
	q.note("round")
	q.waited = q.l.poller.(*simEpoll)
	q.m.begin()
	q.l.turn()
	if q.err == nil {
		if err := q.m.end(q.waited.reported); err != nil {
			q.fail("round %d: %w", q.m.round, err)
		}
	}
	if q.waited != q.l.poller { // the queue is another
		for h := range q.m.all() {
			h.waiting = false
		}
	}
}

// handle is the handler of all services: it has the call judged and goes on with
// the program.
func (q *sequence) handle(ms *modelService, ev *Event) {
	q.note("call %v for %d", ev.UserData, ev.Fd)
	q.executed("the handler before")
	ms.calls++
	if err := q.m.call(ms, ev, q.waited.reported); err != nil {
		q.fail("call for %d with %#x: %w", ev.Fd, ev.Revents, err)
	}
	if q.err != nil {
		return
	}
	if s := q.k.open[ev.Fd]; s != nil && ev.Revents&unix.POLLNVAL == 0 && q.choose(2) == 0 {
		q.set(s, s.ready&^unix.POLLIN)
	}
	for range q.choose(3) {
		q.act()
	}
	for _, s := range q.m.doomed {
		if !q.opened(s) {
			q.fail("closed while a handler runs")
		}
	}
	if q.choose(12) == 1 {
		// It costs the socket, if the handler has not registered it anew.
		if h := find(ms.has, ev.Fd); h != nil && h.since < q.m.round {
			q.m.remove(ms, ev.Fd)
		}
		q.note("panic")
		panic("of the model test")
	}
}

// set changes what is ready on a socket. One that nothing is ready on has lost its
// place in the kernel's queue: it waits anew.
func (q *sequence) set(s *simSocket, ready int16) {
	q.k.set(s, ready)
	for h := range q.m.all() {
		if h.sock == s && ready&h.events == 0 {
			h.waiting = false
		}
	}
}

func (q *sequence) opened(s *simSocket) bool {
	for _, o := range q.k.open {
		if o == s {
			return true
		}
	}
	return false
}

// executed requires that the sockets that were to be closed are.
func (q *sequence) executed(when string) {
	for _, s := range q.m.doomed {
		if q.opened(s) {
			q.fail("still open after %s", when)
		}
	}
	q.m.doomed = nil
}

// act does one thing that a program or its handlers can do, or that happens to
// them.
func (q *sequence) act() {
	q.compare()
	i := q.choose(len(q.services))
	s, ms := q.services[i], q.m.services[i]
	fd := int32(q.choose(numbers)) - 1
	sock := q.k.open[fd]
	q.ids++
	var err error
	ok := true
	op := q.choose(16)
	defer func() { q.note("op %d service %d socket %d: #%d %v", op, i, fd, q.ids, err) }()
	switch op {
	case 0:
		q.define()
	case 1, 2:
		if len(q.k.open) < numbers-1 {
			fd := q.k.socket(q.ids)
			q.k.open[fd].file = q.choose(8) == 1
		}
	case 3:
		if sock != nil && !slices.Contains(q.m.doomed, sock) {
			sock.dups += q.choose(2)
			q.k.close(fd)
		}
	case 4, 5, 6:
		if sock != nil {
			q.set(sock, []int16{unix.POLLIN, unix.POLLIN | unix.POLLOUT, unix.POLLIN | unix.POLLHUP, unix.POLLERR, 0}[q.choose(5)])
		}
	case 7:
		q.waitFails()
	case 8, 9:
		var set []unix.PollFd
		for range q.choose(ms.slots + 2) {
			set = append(set, unix.PollFd{Fd: int32(q.choose(numbers)) - 1, Events: q.events()})
		}
		ok, err = q.m.register(ms, set, q.ids), s.Register(set, q.ids)
	case 10:
		ok, err = q.m.register(ms, nil, 0), s.Unregister()
	case 11:
		q.m.close(ms)
		err = s.Close()
		if q.l.running == nil {
			q.executed("Close")
		}
	case 12:
		ok, err = q.m.remove(ms, fd), s.Remove(int(fd))
	default:
		events := q.events()
		ok, err = q.m.add(ms, fd, events, q.ids), s.Add(int(fd), events, q.ids)
	}
	if ok != (err == nil) {
		q.fail("operation %d on service %d, socket %d: %v", op, i, fd, err)
	}
}

func (q *sequence) events() int16 {
	return []int16{unix.POLLIN, unix.POLLIN | unix.POLLOUT, unix.POLLOUT, 0}[q.choose(4)]
}

// waitFails has the next wait end in an error.
func (q *sequence) waitFails() { q.l.poller.(*simEpoll).broken = true }

// compare requires that the services have the sockets that they are to have, and
// that the kernel is asked for exactly what they want.
func (q *sequence) compare() {
	if q.err != nil {
		return
	}
	for i, ms := range q.m.services {
		got := q.services[i].Sockets()
		ms.has = slices.DeleteFunc(ms.has, func(h *modelSocket) bool {
			at := slices.Index(got, unix.PollFd{Fd: h.fd, Events: h.events})
			if at >= 0 {
				got = slices.Delete(got, at, at+1)
			} else if !q.m.lost(h) { // else the loop has found out
				q.fail("service %d does not have socket %d", i, h.fd)
			}
			return at < 0
		})
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

// nightly runs set the flag: see the Makefile.
func init() {
	if err := flag.Set("rapid.checks", "2000"); err != nil {
		panic(err)
	}
}

func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		program := rapid.SliceOfN(rapid.Byte(), 100, 600).Draw(t, "program")
		if err := run(program); err != nil {
			t.Fatal(err)
		}
	})
}

func FuzzModel(f *testing.F) {
	f.Add([]byte("any bytes are a program"))
	f.Fuzz(func(t *testing.T, program []byte) {
		if err := run(program); err != nil {
			t.Fatal(err)
		}
	})
}
