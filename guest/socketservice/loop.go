package socketservice

import (
	"fmt"
	"iter"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// DefaultPollMax is the PollMax of a loop whose configuration sets none.
const DefaultPollMax = 1024

// Config is the configuration of a loop. The zero value is ready for use.
type Config struct {
	// PollMax is the maximal number of slots of all services together, plus one
	// for the loop itself: Zephyr's CONFIG_ZVFS_POLL_MAX. Zero means
	// DefaultPollMax.
	PollMax int

	// Priority is the nice value of the loop's thread, from -20 (most urgent)
	// to 19: Zephyr's CONFIG_NET_SOCKETS_SERVICE_THREAD_PRIO. Zero keeps the
	// process's own. Any other value implies LockThread. A value below the
	// process's own needs CAP_SYS_NICE; without it the start fails.
	Priority int

	// LockThread gives the loop an operating system thread of its own. Each
	// switch between the loop and another goroutine then costs several
	// microseconds, so set it only for handlers that need it.
	LockThread bool

	// Logger receives the loop's records, with the attribute
	// module=net_sock_svc, the module's name in Zephyr. Nil means the default
	// logger of package slog at the time of Start.
	Logger *slog.Logger
}

type state int

const (
	idle state = iota
	starting
	running
	failed
	stopped
)

// A Loop polls the sockets of the services that are defined on it and calls their
// handlers, one at a time, on a goroutine of its own. It runs once: after Stop, or a
// failed Start, it cannot be started again.
type Loop struct {
	newPoller   func() (poller, error)
	closeSocket func(fd int)
	clock       func() time.Duration // since any fixed time

	started chan struct{} // closed when the start has succeeded or failed
	done    chan struct{} // closed when the loop's goroutine has ended

	callers  atomic.Int32 // how many calls are about to take the lock
	mu       sync.Mutex
	returned sync.Cond // signals calls that wait for a handler: a handler has returned
	cfg      Config
	log      *slog.Logger
	state    state
	cause    error // of a failed start
	services table[Service]
	defined  uint32 // the number of services
	counters []*[chunk]counters
	errors   map[uint32]uint64 // by service, see Stats
	total    int               // slots of all services that PollMax admits
	poller   poller
	retired  []poller // replaced; the loop's goroutine may still wait on them
	waitsOn  poller   // the poller on which the loop's goroutine waits

	definitions     table[definition]
	definitionsUsed uint32
	newest          *definition

	// What is polled; see watch.go and set.go.
	slots     table[slot]
	slotsUsed uint32
	data      table[any]         // by slot, if the slot has any
	watches   table[watch]       // by descriptor
	shared    map[int32][]uint32 // the slots that hold a descriptor, after the first
	seq       uint32             // the newest generation
	losses    []loss             // without their POLLNVAL calls yet
	lost      uint64             // the number of losses so far
	inspector *time.Timer        // see inspect
	sweepAt   uint32             // the descriptor to look at next
	dirty     bool               // the kernel's set differs from the watches: rebuild it
	robbed    bool               // the program has closed the poller's descriptors, and that is not logged yet
	planned   map[int32]int32    // of replace: by descriptor, the index in next
	undo      []undo
	next      []slot
	ev        unix.EpollEvent // a local one would be allocated for each call
	condemned []int32         // sockets to close when no handler runs
	executed  uint            // how often condemned sockets were closed

	// The round that runs; see dispatch.go.
	goid      uint64 // of the loop's goroutine
	round     uint32
	scan      uint   // the event at which the round starts
	full      bool   // the newest round had as many events as fit
	ready     []call // the calls of the newest round
	at        int    // the first of them that is still to be made
	current   call
	running   *Service // the service whose handler runs
	runningFd int32
	begun     time.Duration    // when the newest call began, by the clock
	serial    uint64           // the number of calls so far
	quiescing map[*Service]int // how many callers wait for the service's handler
	watchdog                   // see watchdog.go

	// Of the loop's goroutine alone.
	events    []unix.EpollEvent
	event     Event
	inProgram bool // in a handler or the logger
	failure   failure
	pause     time.Duration
	ended     time.Duration // when the newest round ended, by the clock
	yielded   time.Duration // when the loop last yielded the processor or waited
}

// NewLoop returns a loop that is not started.
func NewLoop(c Config) *Loop {
	epoch := time.Now()
	if c.PollMax == 0 {
		c.PollMax = DefaultPollMax
	}
	l := &Loop{
		cfg:         c,
		newPoller:   newEpoll,
		closeSocket: func(fd int) { _ = unix.Close(fd) },
		clock:       func() time.Duration { return time.Since(epoch) },
		started:     make(chan struct{}),
		done:        make(chan struct{}),
		events:      make([]unix.EpollEvent, batch),
		errors:      map[uint32]uint64{},
		shared:      map[int32][]uint32{},
		planned:     map[int32]int32{},
		quiescing:   map[*Service]int{},
		watchdog:    watchdog{slow: slowHandler},
	}
	l.returned.L = &l.mu
	return l
}

// Define makes a service with count free slots. The name is for people, and two
// services may have the same. Define panics if the handler is nil or if count is not
// positive.
//
// A service may be defined while the loop runs, even from inside a handler. If that
// exceeds PollMax, the service's Register fails with ENOMEM.
func (l *Loop) Define(name string, handler Handler, count int) *Service {
	return l.define(1, name, handler, count)
}

// All iterates, in the order of their definition, over the services that exist when the
// iteration starts: Zephyr's net_socket_service_foreach.
func (l *Loop) All() iter.Seq[*Service] {
	return func(yield func(*Service) bool) {
		l.mu.Lock()
		services, n := l.services, l.defined
		l.mu.Unlock()
		for i := range n {
			if !yield(services.at(i)) {
				return
			}
		}
	}
}

// Start starts the loop. Calls of Register that wait for the start continue. Start fails
// with ENOENT when no service is defined; with ENOMEM when PollMax is too small, and
// the message then names a sufficient value (Zephyr #69233); with EALREADY when the
// loop was started before; with EIO when it was stopped; and with the kernel's errno
// when it cannot set up the poller or the thread. A failed start is final.
func (l *Loop) Start() error {
	l.mu.Lock()
	if l.state != idle {
		defer l.mu.Unlock()
		if l.state == failed || l.state == stopped {
			return &Error{Op: "start", Err: refusal(l.state, l.cause)}
		}
		return &Error{Op: "start", Err: fmt.Errorf("started before: %w", unix.EALREADY)}
	}
	l.state = starting
	err := l.prepare()
	l.mu.Unlock()

	if err == nil {
		ready := make(chan error, 1)
		go l.run(ready)
		err = <-ready
	}

	l.mu.Lock()
	defer l.mu.Unlock()
	defer close(l.started)
	if err != nil {
		l.state, l.cause = failed, err
		l.shut()
		return &Error{Op: "start", Err: err}
	}
	l.state = running
	l.inspector = time.AfterFunc(sweepEvery, l.inspect)
	return nil
}

// prepare is the part of Start that needs no goroutine.
func (l *Loop) prepare() (err error) {
	log := l.cfg.Logger
	if log == nil {
		log = slog.Default()
	}
	l.log = log.With("module", "net_sock_svc")
	if l.defined == 0 {
		return fmt.Errorf("no service is defined: %w", unix.ENOENT)
	}
	if l.total+1 > l.cfg.PollMax {
		return fmt.Errorf("PollMax of %d is too small for the slots of %d services, at least %d needed: %w",
			l.cfg.PollMax, l.defined, l.total+1, unix.ENOMEM)
	}
	l.poller, err = l.newPoller()
	return err
}

// Stop ends the loop for good and leaves all sockets open. It waits until the running
// handler returns. After Stop has returned, no handler of any service runs. When a
// handler calls Stop, Stop does not wait, and the loop ends when that handler returns.
// All later calls fail with EIO, except Stop, which may be called again.
func (l *Loop) Stop() error {
	l.mu.Lock()
	for l.state == starting {
		l.mu.Unlock()
		<-l.started
		l.mu.Lock()
	}
	switch l.state {
	case idle:
		l.state = stopped
		close(l.started)
		close(l.done)
	case running:
		l.state = stopped
		for i := range l.defined {
			l.release(l.services.at(i))
		}
		l.poller.wake()
	case failed:
		l.mu.Unlock()
		return nil
	}
	inside := l.onLoop()
	l.mu.Unlock()
	if !inside {
		<-l.done
	}
	return nil
}

// shut closes the pollers, once the loop's goroutine no longer uses them.
func (l *Loop) shut() {
	l.closeRetired()
	if l.inspector != nil {
		l.inspector.Stop()
	}
	if l.poller != nil {
		l.poller.close()
		l.poller = nil
	}
}

func (l *Loop) closeRetired() {
	for _, p := range l.retired {
		p.close()
	}
	l.retired = nil
}
