package netstack

import (
	"bytes"
	"maps"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

const (
	// ackDelay is how long an acknowledgment waits for data that carries it. RFC 1122 (4.2.3.2) allows 500 ms, and
	// Linux waits for 40 ms at least. After an acknowledgment that no data followed, none waits until the program
	// answers again. So a guest that sends a segment only after the acknowledgment of the one before loses this time
	// once after each answer, for example by Nagle's algorithm if it writes a request in parts.
	ackDelay = 5 * time.Millisecond

	maxFlows = 1024 // connections whose acknowledgments are known
)

// Acks delays the acknowledgments of connections on which the program answers. The stack acknowledges each segment at
// once. An answer that follows carries the same acknowledgment, so one frame and one interrupt of the guest for each
// round trip are not needed.
type acks struct {
	send func(frames ...[]byte)

	mu     sync.Mutex
	flows  map[flow]*acked
	timer  *time.Timer // calls late; nil if it does not run
	closed bool
}

// A flow is a connection: its addresses and ports.
type flow struct {
	addresses [2 * header.IPv6AddressSize]byte
	ports     [4]byte
}

// An acked is what the acknowledgments of a flow were.
type acked struct {
	number  uint32    // the newest one
	at      time.Time // when the newest one came that has no data
	answers bool      // data has followed it within ackDelay
	held    []byte    // the frame that waits; nil if none does
}

func newAcks(send func(frames ...[]byte)) *acks {
	return &acks{send: send, flows: make(map[flow]*acked)}
}

// flowOf returns the connection of a TCP segment.
func flowOf(pkt *stack.PacketBuffer) (f flow) {
	switch ip := pkt.NetworkHeader().Slice(); pkt.NetworkProtocolNumber {
	case header.IPv4ProtocolNumber:
		copy(f.addresses[:], ip[12:20])
	case header.IPv6ProtocolNumber:
		copy(f.addresses[:], ip[8:40])
	}
	copy(f.ports[:], pkt.TransportHeader().Slice())
	return f
}

// hold reports whether a packet is an acknowledgment that waits. Its frame is then sent later, unless a newer segment
// makes it unnecessary.
func (a *acks) hold(pkt *stack.PacketBuffer, frame []byte) bool {
	const (
		twoSegments = 2 * 1460 // bytes that are acknowledged at once
		timestamps  = 12       // bytes of TCP options of every segment; an acknowledgment with gaps (SACK) has more
	)
	if pkt.TransportProtocolNumber != header.TCPProtocolNumber {
		return false
	}
	tcp := header.TCP(pkt.TransportHeader().Slice())
	if len(tcp) < header.TCPMinimumSize {
		return false
	}
	key, flags, number := flowOf(pkt), tcp.Flags(), tcp.AckNumber()
	now := time.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	f := a.flows[key]
	if flags.Intersects(header.TCPFlagSyn | header.TCPFlagFin | header.TCPFlagRst) {
		delete(a.flows, key)
		return false
	}
	if f == nil {
		if len(a.flows) == maxFlows {
			maps.DeleteFunc(a.flows, func(_ flow, f *acked) bool { return f.held == nil })
		}
		if len(a.flows) == maxFlows {
			return false
		}
		f = &acked{number: number}
		a.flows[key] = f
	}
	waited := f.held != nil
	advance := number - f.number
	f.held, f.number = nil, number // this segment says the same as the one that waits, or more
	if pkt.Data().Size() > 0 {
		f.answers = now.Sub(f.at) < ackDelay
		return false
	}
	f.at = now
	if !f.answers || waited || a.closed || advance == 0 || advance >= twoSegments || len(tcp) > header.TCPMinimumSize+timestamps {
		return false
	}
	f.held = bytes.Clone(frame)
	a.arm(ackDelay)
	return true
}

// arm makes the timer call late. A timer that runs stays as it is: setting it for each frame would cost more than the
// frame. The caller holds mu.
func (a *acks) arm(in time.Duration) {
	if a.timer == nil {
		a.timer = time.AfterFunc(in, a.late)
	}
}

// late sends the acknowledgments that no data has followed.
func (a *acks) late() {
	var frames [][]byte
	a.mu.Lock()
	a.timer = nil
	if a.closed {
		a.mu.Unlock()
		return
	}
	next, waits := ackDelay, false
	for _, f := range a.flows {
		if f.held == nil {
			continue
		}
		if left := ackDelay - time.Since(f.at); left > 0 {
			next, waits = min(next, left), true
			continue
		}
		frames = append(frames, f.held)
		f.held, f.answers = nil, false
	}
	if waits {
		a.arm(next)
	}
	a.mu.Unlock()
	if len(frames) > 0 {
		a.send(frames...)
	}
}

// close sends no more acknowledgments.
func (a *acks) close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.closed = true
	if a.timer != nil {
		a.timer.Stop()
	}
}
