package outbound

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"
)

// A Filter takes the frames of one guest from QEMU and gives back those that its rules let pass.
type Filter struct {
	rules Rules
	sent  inbox // what the guest sends,
	given queue // what of it may pass, and
	seen  inbox // a copy of what the guest is sent
	ended sync.WaitGroup

	permitted []byte // used by whoever reads sent
	flows     flows

	mu      sync.Mutex
	stopped []string
}

// Start has a filter work until QEMU closes its ends of the connections, which the filter closes
// then. QEMU writes the frames of the guest to sent, reads those that may pass from given, and
// writes a copy of each frame to seen before the guest has it. Each follows its length, in four
// bytes and network order.
func Start(rules Rules, sent, given, seen net.Conn) (*Filter, error) {
	f := &Filter{rules: rules, given: queue{filled: make(chan struct{}, 1)}}
	var err error
	for conn, raw := range map[net.Conn]*syscall.RawConn{sent: &f.sent.raw, given: &f.given.raw, seen: &f.seen.raw} {
		if *raw, err = rawConn(conn); err != nil {
			return nil, err
		}
	}
	f.sent.take, f.sent.batch = f.judge, f.give
	f.seen.take, f.seen.batch = f.flows.note, func() {}
	f.ended.Go(func() {
		defer sent.Close()
		defer f.given.end()
		f.sent.watch()
	})
	f.ended.Go(func() {
		defer seen.Close()
		f.seen.watch()
	})
	f.ended.Go(func() {
		defer given.Close()
		f.given.deliver(given)
	})
	return f, nil
}

func rawConn(conn net.Conn) (syscall.RawConn, error) {
	c, ok := conn.(syscall.Conn)
	if !ok {
		return nil, fmt.Errorf("outbound: %T has no descriptor", conn)
	}
	return c.SyscallConn()
}

// Wait waits until QEMU is gone. A nil filter is of no machine, and not waited for.
func (f *Filter) Wait() {
	if f != nil {
		f.ended.Wait()
	}
}

// mostStopped bounds what Stopped tells.
const mostStopped = 32

// Stopped returns where the guest wanted to go and may not, as "tcp 192.0.2.2:80": the first 32
// places. Those of a nil filter are none.
func (f *Filter) Stopped() []string {
	if f == nil {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.stopped)
}

// Flush gives QEMU what it has written so far and may pass. A nil filter has nothing.
func (f *Filter) Flush() {
	if f != nil {
		f.sent.look()
	}
}

// judge keeps a frame for give, if it may pass.
func (f *Filter) judge(frame []byte) {
	verdict := f.rules.judge(frame, f.isAnswer)
	if verdict != pass {
		f.note(frame)
	}
	if verdict == refuse {
		spoil(frame)
	}
	if verdict != drop {
		f.permitted = append(binary.BigEndian.AppendUint32(f.permitted, uint32(len(frame))), frame...)
	}
}

// give gives QEMU the frames of a batch that may pass.
func (f *Filter) give() {
	f.given.write(f.permitted)
	f.permitted = f.permitted[:0]
}

// note keeps where a frame that was stopped should have gone, for whoever wonders.
func (f *Filter) note(frame []byte) {
	p, _ := parse(frame)
	network, to, ok := p.destination()
	if !ok || to.Addr().IsMulticast() || to.Addr() == everybody {
		return // what systems send unasked
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.stopped) < mostStopped {
		if where := network + " " + to.String(); !slices.Contains(f.stopped, where) {
			f.stopped = append(f.stopped, where)
		}
	}
}

// isAnswer says whether a datagram of the guest is one. QEMU has written to seen whatever the
// guest had when it answered, so a look there settles it.
func (f *Filter) isAnswer(sent flow) bool {
	if f.flows.known(sent, time.Now()) {
		return true
	}
	f.seen.look()
	return f.flows.known(sent, time.Now())
}

// everybody is the address of a broadcast.
var everybody = netip.AddrFrom4([4]byte{255, 255, 255, 255})
