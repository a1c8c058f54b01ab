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

// A sequence runs a program, in which each byte is a choice, on a loop over the simulated
// kernel and on the model. The loop has no goroutine: the sequence runs its rounds itself,
// so that a program always has the same effect.
type sequence struct {
	program  []byte
	k        *simKernel
	l        *Loop
	m        *model
	services []*Service
	ids      int
	waited   *simEpoll // in the round that runs
	within   bool      // a round
	outside  *outside
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

// run executes a program and returns the difference between the loop and the model.
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
	q.l.watching = true // no timer
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
		switch q.choose(26) {
		case 24:
			q.pass()
		case 25:
			q.steal()
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
	q.within = true
	q.l.turn()
	q.within = false
	q.settle()
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

// handle is the handler of all services. It checks the call with the model and goes on with
// the program.
func (q *sequence) handle(ms *modelService, ev *Event) {
	q.note("call %v for %d", ev.UserData, ev.Fd)
	ms.calls++
	if q.outside != nil && q.outside.ms == ms {
		q.fail("call for %d while a call from outside waits for the handler", ev.Fd)
	}
	if err := q.m.call(ms, ev, q.waited.reported); err != nil {
		q.fail("call for %d with %#x: %w", ev.Fd, ev.Revents, err)
	}
	q.settle()
	q.executed("the handler before")
	q.compare()
	if q.err != nil {
		return
	}
	if s := q.k.open[ev.Fd]; s != nil && ev.Revents&unix.POLLNVAL == 0 && q.choose(2) == 0 {
		q.ready(s, s.ready&^unix.POLLIN)
	}
	if q.choose(6) == 1 {
		q.wait(slices.Index(q.m.services, ms))
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
		// It costs the socket, if the handler has not registered it again, and if it
		// has not been lost already.
		q.compare()
		if h := find(ms.has, ev.Fd); h != nil && h.since < q.m.round && !h.owed {
			q.m.remove(ms, ev.Fd)
		}
		q.note("panic")
		panic("of the model test")
	}
}

// ready changes which events are ready on a socket. A socket without ready events loses its
// place in the kernel's queue.
func (q *sequence) ready(s *simSocket, ready int16) {
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

// executed requires that the condemned sockets are closed, and that other services that had
// them get POLLNVAL.
func (q *sequence) executed(when string) {
	if q.err != nil || len(q.m.doomed) == 0 {
		return
	}
	doomed := q.m.doomed
	q.m.doomed = nil
	for _, s := range doomed {
		if q.opened(s) {
			q.fail("still open after %s", when)
		}
	}
	q.compare()
	for h := range q.m.all() {
		if slices.Contains(doomed, h.sock) && !h.owed {
			q.fail("socket %d was closed by another service, and its own is not told", h.fd)
		}
	}
}

// pass lets time pass until the loop checks for lost sockets.
func (q *sequence) pass() {
	q.note("a second passes")
	q.compare()
	var lost []*modelSocket
	for h := range q.m.all() {
		if q.m.lost(h) {
			lost = append(lost, h)
		}
	}
	q.l.inspect()
	q.compare()
	for h := range q.m.all() {
		if slices.Contains(lost, h) && !h.owed {
			q.fail("socket %d: the loop has not found in a second that it is lost", h.fd)
		}
	}
}

// steal puts another file under the poller's number. The loop cannot tell then which numbers
// belong to other sockets, so the sequence has none.
func (q *sequence) steal() {
	for h := range q.m.all() {
		if q.m.lost(h) && q.k.open[h.fd] != nil {
			return
		}
	}
	q.note("the poller's descriptor is taken")
	stolen := q.l.poller.(*simEpoll)
	stolen.stolen = true
	q.turn()
	if q.l.poller == stolen {
		q.fail("the loop keeps a poller that is not its own")
	}
}

// act does one thing that a program or its handlers can do or suffer.
func (q *sequence) act() {
	q.compare()
	i := q.choose(len(q.services))
	s, ms := q.services[i], q.m.services[i]
	fd := int32(q.choose(numbers)) - 1
	sock := q.k.open[fd]
	q.ids++
	var err error
	ok := true
	op := q.choose(17)
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
			q.ready(sock, []int16{unix.POLLIN, unix.POLLIN | unix.POLLOUT, unix.POLLIN | unix.POLLHUP, unix.POLLERR, 0}[q.choose(5)])
		}
	case 7:
		q.waitFails()
	case 8, 9:
		set := q.set(ms)
		ok, err = q.m.register(ms, set), s.RegisterEach(set)
	case 10:
		ok, err = q.m.register(ms, nil), s.Unregister()
	case 11:
		q.m.close(ms)
		err = s.Close()
		if q.l.running == nil {
			q.executed("Close")
		}
	case 12:
		ok, err = q.m.remove(ms, fd), s.Remove(int(fd))
	case 13:
		for _, sock := range s.Sockets() {
			if h := find(ms.has, sock.Fd); h == nil || q.m.lost(h) {
				q.fail("service %d lists socket %d, which is lost", i, sock.Fd)
			}
		}
	default:
		events := q.events()
		ok, err = q.m.add(ms, fd, events, q.ids), s.Add(int(fd), events, q.ids)
	}
	if ok != (err == nil) {
		q.fail("operation %d on service %d, socket %d: %v", op, i, fd, err)
	}
}

// set returns a set of sockets to be registered.
func (q *sequence) set(ms *modelService) (set []Socket) {
	for range q.choose(ms.slots + 2) {
		q.ids++
		set = append(set, Socket{unix.PollFd{Fd: int32(q.choose(numbers)) - 1, Events: q.events()}, q.ids})
	}
	return set
}

func (q *sequence) events() int16 {
	return []int16{unix.POLLIN, unix.POLLIN | unix.POLLOUT, unix.POLLOUT, 0}[q.choose(4)]
}

// waitFails makes the next wait return an error.
func (q *sequence) waitFails() { q.l.poller.(*simEpoll).broken = true }

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
