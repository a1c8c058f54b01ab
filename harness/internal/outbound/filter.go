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

// A Filter receives the frames of one guest from QEMU and returns to QEMU those that its rules let
// pass. The methods of a nil Filter do nothing.
type Filter struct {
	rules Rules
	sent  inbox // the frames that the guest sends
	given queue // those of them that may pass
	seen  inbox // copies of the frames for the guest
	ended sync.WaitGroup

	permitted []byte // the frames of a batch that may pass; guarded by sent.mu
	flows     flows

	mu      sync.Mutex
	stopped []string // guarded by mu
}

// Start starts a filter. QEMU writes the guest's frames to sent, reads those that may pass from
// given, and writes a copy of each frame for the guest to seen before the guest gets the frame.
// Each frame follows its length, which is four bytes in network order. When QEMU closes its ends,
// the filter closes the connections and ends.
func Start(rules Rules, sent, given, seen net.Conn) (*Filter, error) {
	f := &Filter{rules: rules, given: queue{filled: make(chan struct{}, 1)}}
	var err error
	for conn, raw := range map[net.Conn]*syscall.RawConn{sent: &f.sent.raw, given: &f.given.raw, seen: &f.seen.raw} {
		if *raw, err = rawConn(conn); err != nil {
			return nil, err
		}
	}
	f.sent.take, f.sent.batch = f.judge, f.forward
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

// Wait waits until QEMU is gone and the filter has ended.
func (f *Filter) Wait() {
	if f != nil {
		f.ended.Wait()
	}
}

// maxStopped is how many destinations Stopped returns at most.
const maxStopped = 32

// Stopped returns the first 32 destinations that the filter has kept from the guest, such as
// "tcp 192.0.2.2:80".
func (f *Filter) Stopped() []string {
	if f == nil {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.stopped)
}

// Flush judges the frames that QEMU has written to sent so far, and returns those that may pass.
func (f *Filter) Flush() {
	if f != nil {
		f.sent.readAvailable()
	}
}

// judge adds a frame to the batch for forward if the frame may pass.
func (f *Filter) judge(frame []byte) {
	verdict := f.rules.judge(frame, f.isAnswer)
	if verdict != pass {
		f.note(frame)
	}
	if verdict == refuse {
		refuseConnection(frame)
	}
	if verdict != drop {
		f.permitted = append(binary.BigEndian.AppendUint32(f.permitted, uint32(len(frame))), frame...)
	}
}

// forward returns to QEMU the frames of a batch that may pass.
func (f *Filter) forward() {
	f.given.write(f.permitted)
	f.permitted = f.permitted[:0]
}

// note records the destination of a frame that may not pass, for Stopped.
func (f *Filter) note(frame []byte) {
	p, _ := parse(frame)
	network, to, ok := p.destination()
	if !ok || to.Addr().IsMulticast() || to.Addr() == broadcast {
		return // systems send such frames without a user's request
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.stopped) < maxStopped {
		if destination := network + " " + to.String(); !slices.Contains(f.stopped, destination) {
			f.stopped = append(f.stopped, destination)
		}
	}
}

// isAnswer reports whether a datagram of the guest answers one that the guest has received. QEMU
// writes a datagram to seen before the guest can answer it, so isAnswer reads seen before it
// returns false.
func (f *Filter) isAnswer(sent flow) bool {
	if f.flows.known(sent, time.Now()) {
		return true
	}
	f.seen.readAvailable()
	return f.flows.known(sent, time.Now())
}

// broadcast is the IPv4 broadcast address.
var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})
