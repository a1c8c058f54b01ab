// Package segment is an Ethernet segment in this process: a switch, and links that can lose, delay and damage
// frames. It knows nothing of what is at the other end of a link.
package segment

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"guesthouse.example/harness/lan/internal/fate"
)

// A Segment is a switch with its links. The methods may be called from any goroutine.
type Segment struct {
	seed uint64

	mu     sync.RWMutex
	links  map[string]*Link
	order  []*Link // of links, in the order in which they were made
	table  map[address]*Link
	cut    map[[2]string]bool // pairs of links that a partition separates
	closed bool
}

// New returns a segment without links. The seed decides the fates of all frames.
func New(seed uint64) *Segment {
	return &Segment{seed: seed, links: make(map[string]*Link), table: make(map[address]*Link), cut: make(map[[2]string]bool)}
}

// An address is a hardware address.
type address [6]byte

// group reports whether the address is a broadcast or multicast address.
func (a address) group() bool { return a[0]&1 == 1 }

const (
	headerSize = 14 // bytes of an Ethernet header
	tagSize    = 4  // bytes of a VLAN tag
	defaultMTU = 1500

	// maxAddresses bounds the table of the switch, because a guest may send from any number of addresses.
	maxAddresses = 4096
)

// A Link connects a machine with the switch. It exists as long as its segment.
type Link struct {
	name     string
	segment  *Segment
	up, down pipe
	plugged  atomic.Pointer[plug]
}

// A plug is what is at a link's far end.
type plug struct {
	out   func(frames [][]byte)
	watch func(Event)
}

// A Direction is a direction of a link.
type Direction int

const (
	Up   Direction = iota // from the machine to the switch
	Down                  // from the switch to the machine
)

func (d Direction) String() string {
	if d == Up {
		return "up"
	}
	return "down"
}

// Link returns the link with a name. It makes the link if there is none, and reports whether it did.
func (s *Segment) Link(name string) (l *Link, made bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.links[name]; l != nil {
		return l, false
	}
	l = &Link{name: name, segment: s}
	for direction, p := range map[Direction]*pipe{Up: &l.up, Down: &l.down} {
		p.stream = fate.NewStream(s.seed, name, direction.String())
		p.watch = func(e Event) {
			if at := l.plugged.Load(); at != nil && at.watch != nil {
				e.Direction = direction
				at.watch(e)
			}
		}
		p.closed = s.closed
	}
	l.up.out = l.forward
	l.down.out = func(frames [][]byte) {
		if at := l.plugged.Load(); at != nil {
			at.out(frames)
		}
	}
	s.links[name], s.order = l, append(s.order, l)
	return l, true
}

// ErrPlugged says that a link has a machine already.
var ErrPlugged = errors.New("a machine is there already")

// Plug puts a machine at the link's far end. The segment calls out for the frames that arrive there, from
// one goroutine at a time; the frames are valid until out returns. If out sends frames itself, they are
// delivered when it has returned. The segment calls watch, if it is not nil, for each frame that enters the link in
// either direction; watch must not use the segment.
func (l *Link) Plug(out func(frames [][]byte), watch func(Event)) (unplug func(), err error) {
	at := &plug{out, watch}
	if !l.plugged.CompareAndSwap(nil, at) {
		return nil, fmt.Errorf("link %s: %w", l.name, ErrPlugged)
	}
	return func() {
		if !l.plugged.CompareAndSwap(at, nil) {
			return
		}
		l.down.clear()
		s := l.segment
		s.mu.Lock()
		defer s.mu.Unlock()
		maps.DeleteFunc(s.table, func(_ address, to *Link) bool { return to == l })
	}, nil
}

// Send sends frames from the machine into the link. The frames may be used again when Send has returned. A machine
// that sends many frames at once lets their receiver take them at once.
func (l *Link) Send(frames ...[]byte) { l.up.send(frames) }

func (l *Link) pipe(d Direction) *pipe {
	if d == Up {
		return &l.up
	}
	return &l.down
}

// SetFaults sets the faults of a direction for the frames that enter it from now on.
func (l *Link) SetFaults(d Direction, p fate.Params) { l.pipe(d).setFaults(p) }

// Faults returns the faults of a direction.
func (l *Link) Faults(d Direction) fate.Params {
	p := l.pipe(d)
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.params
}

// Stats returns what has happened to the frames of a direction.
func (l *Link) Stats(d Direction) Stats {
	p := l.pipe(d)
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stats
}

// SetUp cuts the link or mends it. A cut link loses all frames, also those on their way.
func (l *Link) SetUp(up bool) {
	l.up.setUp(up)
	l.down.setUp(up)
}

// forward sends frames that have come up the link to the links of their destinations.
func (l *Link) forward(frames [][]byte) {
	for len(frames) > 0 {
		n := together(frames)
		l.forwardTo(frames[:n])
		frames = frames[n:]
	}
}

// together returns how many frames, from the first one on, have the same addresses.
func together(frames [][]byte) int {
	if len(frames[0]) < headerSize {
		return 1
	}
	for n, frame := range frames {
		if len(frame) < headerSize || !bytes.Equal(frame[:12], frames[0][:12]) {
			return n
		}
	}
	return len(frames)
}

// forwardTo sends frames with the same addresses to the links of their destination.
func (l *Link) forwardTo(frames [][]byte) {
	if len(frames[0]) < headerSize {
		return
	}
	to, from := address(frames[0][:6]), address(frames[0][6:12])
	if from.group() {
		return // no machine has such an address
	}
	s := l.segment
	s.mu.RLock()
	learned := s.table[from] == l
	s.mu.RUnlock()
	if !learned {
		s.learn(from, l)
	}
	// A link's goroutine may come back to forward, so no lock is held during the call of send.
	s.mu.RLock()
	only := s.table[to]
	if to.group() {
		only = nil
	}
	var others []*Link
	switch {
	case only == nil:
		others = make([]*Link, 0, len(s.order))
		for _, other := range s.order {
			if other != l && !s.cut[pair(l.name, other.name)] {
				others = append(others, other)
			}
		}
	case only == l, s.cut[pair(l.name, only.name)]:
		only = nil
	}
	s.mu.RUnlock()
	if only != nil {
		only.down.send(frames)
	}
	for _, other := range others {
		if other.plugged.Load() != nil {
			other.down.send(frames)
		}
	}
}

// learn notes which link leads to an address.
func (s *Segment) learn(from address, l *Link) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, known := s.table[from]; (known || len(s.table) < maxAddresses) && l.plugged.Load() != nil {
		s.table[from] = l
	}
}

// pair returns the same value for two names in either order.
func pair(a, b string) [2]string { return [2]string{min(a, b), max(a, b)} }

// Cut separates two links: no frame passes from one to the other. Mend connects them again.
func (s *Segment) Cut(a, b string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cut[pair(a, b)] = true
}

// Mend undoes all calls of Cut.
func (s *Segment) Mend() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.cut)
}

// Close drops all frames on their way and all later ones.
func (s *Segment) Close() {
	s.mu.Lock()
	s.closed = true
	links := slices.Clone(s.order)
	s.mu.Unlock()
	for _, l := range links {
		l.up.close()
		l.down.close()
	}
}
