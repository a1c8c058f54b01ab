package socketservice

import (
	"fmt"
	"path"
	"runtime"
	"strconv"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A Handler is called on the loop when one of its service's sockets has an event.
// It must not block; see the package documentation.
//
// If a handler panics, the loop logs the panic, frees the slot of the socket for
// which the handler was called, and goes on. The socket stays open.
type Handler func(*Event)

// An Event is the argument of a handler: a copy of the slot's state at the time of
// the call. The loop reuses the Event for the next call, so it is valid only until
// the handler returns. A handler that needs it longer copies it.
//
// Revents can have POLLERR, POLLHUP and POLLNVAL even if Events does not ask for
// them. If Events asks for POLLIN, Revents has POLLIN together with them as long as
// there are bytes to read (Zephyr #113090). POLLNVAL means that the service has lost the socket, because the
// socket was closed. The slot is already free, and the handler must neither use nor
// close the descriptor, because its number may belong to another file by now.
type Event struct {
	unix.PollFd
	UserData any
	Service  *Service
}

// A Service is a handler and the slots for the sockets that it serves. [Define] or
// [Loop.Define] makes it, and it lives as long as its loop.
//
// An idle service with one socket uses 56 bytes of memory: 24 for the Service, 16 for
// the slot and 16 for the watch on the descriptor. User data uses 16 more bytes, the
// counters of a service that was called 24, and a definition that is not shared 40.
type Service struct {
	*definition
	base    uint32 // the first of its slots in the loop's table
	count   int32
	free    int32 // the first free slot, or noSlot; the others are chained to it
	refused bool  // defined on a running loop, beyond its PollMax
}

// noSlot ends a chain of free slots.
const noSlot = -1

// A definition holds what successive services share if one line of the program defines
// them with the same name and handler.
type definition struct {
	loop    *Loop
	pc      uintptr
	name    string
	handler Handler
}

// same compares the handlers as pointers to closures: handlers with equal pointers do
// the same.
func (d *definition) same(o *definition) bool {
	closure := func(h *Handler) unsafe.Pointer { return *(*unsafe.Pointer)(unsafe.Pointer(h)) }
	return d.pc == o.pc && d.name == o.name && closure(&d.handler) == closure(&o.handler)
}

// Stats are the counters of a service since its definition.
type Stats struct {
	Calls uint64 // calls of the handler

	// Time is the total time in the handler, and MaxTime the time of the longest
	// call. The loop reads the clock once for each call, so a call's time includes
	// the loop's own work since the previous call: about 0.1 µs.
	Time, MaxTime time.Duration

	// Errors counts events with POLLERR or POLLNVAL, panics, and the errors that
	// CountErrors adds.
	Errors uint64
}

// define is Define for callers skip frames up the stack.
func (l *Loop) define(skip int, name string, handler Handler, count int) *Service {
	if handler == nil {
		panic(fmt.Sprintf("socketservice: define %q: handler is nil", name))
	}
	if count <= 0 {
		panic(fmt.Sprintf("socketservice: define %q: count of %d is not positive", name, count))
	}
	var pcs [1]uintptr
	runtime.Callers(skip+2, pcs[:])

	l.mu.Lock()
	defer l.mu.Unlock()
	if d := (definition{l, pcs[0], name, handler}); l.newest == nil || !d.same(l.newest) {
		l.definitions.reach(l.definitionsUsed)
		l.newest = l.definitions.at(l.definitionsUsed)
		*l.newest = d
		l.definitionsUsed++
	}
	index := l.defined
	l.defined++
	l.services.reach(index)
	if int(index/chunk) == len(l.counters) {
		l.counters = append(l.counters, nil)
	}
	s := l.services.at(index)
	*s = Service{definition: l.newest, base: l.slotsUsed, count: int32(count)}
	for i := range s.count {
		at := s.base + uint32(i)
		l.slots.reach(at)
		*l.slots.at(at) = slot{service: index, fd: chained(i + 1)}
	}
	l.slots.at(s.base + uint32(count-1)).fd = chained(noSlot)
	l.slotsUsed += uint32(count)
	if l.state != idle && l.total+count+1 > l.cfg.PollMax {
		s.refused = true
	} else {
		l.total += count
	}
	return s
}

// Name returns the service's name. Two services may have the same.
func (s *Service) Name() string {
	if s.definition == nil {
		return ""
	}
	return s.name
}

// Owner returns where the service is defined, as folder/file.go:line. It distinguishes
// two services with the same name, and is the same on every machine.
func (s *Service) Owner() string {
	if s.definition == nil {
		return "?"
	}
	frame, _ := runtime.CallersFrames([]uintptr{s.pc}).Next()
	if frame.File == "" {
		return "?"
	}
	return path.Join(path.Base(path.Dir(frame.File)), path.Base(frame.File)) + ":" + strconv.Itoa(frame.Line)
}

// Slots returns how many sockets the service can hold.
func (s *Service) Slots() int { return int(s.count) }

// A Socket is one socket of a service, the events that are polled for, and the user
// data of its events.
type Socket struct {
	unix.PollFd
	UserData any
}

// Sockets returns a copy of the occupied slots, in slot order. Revents is zero. It
// makes one system call for each socket, to leave out sockets that the program closed
// without unregistering them.
func (s *Service) Sockets() []Socket {
	if s.definition == nil {
		return nil
	}
	l := s.loop
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.state == running {
		l.sweepService(s)
	}
	return l.occupied(s)
}

func (l *Loop) occupied(s *Service) (sockets []Socket) {
	for i := range s.count {
		id := s.base + uint32(i)
		if sl := l.slots.at(id); sl.fd >= 0 {
			sockets = append(sockets, Socket{unix.PollFd{Fd: sl.fd, Events: sl.events}, l.userData(id)})
		}
	}
	return sockets
}

// Stats returns the service's counters.
func (s *Service) Stats() Stats {
	if s.definition == nil {
		return Stats{}
	}
	l := s.loop
	l.mu.Lock()
	defer l.mu.Unlock()
	index := l.slots.at(s.base).service
	stats := Stats{Errors: l.errors[index]}
	if c := l.counters[index/chunk]; c != nil {
		c := c[index%chunk]
		stats.Calls, stats.Time, stats.MaxTime = c.calls, c.time, c.max
	}
	return stats
}

// CountErrors adds n to the errors of [Service.Stats]. For example, a handler calls it
// for a datagram that it could not answer. Any goroutine may call it.
func (s *Service) CountErrors(n uint64) {
	if s.definition == nil {
		return
	}
	l := s.loop
	l.mu.Lock()
	defer l.mu.Unlock()
	l.errors[l.slots.at(s.base).service] += n
}

// counters are updated at every call of a service's handler. Errors are counted
// elsewhere, because few services have any.
type counters struct {
	calls     uint64
	time, max time.Duration
}

// account returns a service's counters. It allocates the counters of a whole chunk of
// services at the first call of one of them, so idle services need none.
func (l *Loop) account(index uint32) *counters {
	c := l.counters[index/chunk]
	if c == nil {
		c = new([chunk]counters)
		l.counters[index/chunk] = c
	}
	return &c[index%chunk]
}
