package outbound

import (
	"sync"
	"time"
)

const (
	flowTimeout = 4 * time.Minute // after its last datagram, as in libslirp
	maxFlows    = 1 << 14
)

// flows are the flows in which the guest may send datagrams, because it has received one in the
// opposite direction. Their number is bounded.
type flows struct {
	mu   sync.Mutex
	last map[flow]time.Time // the time of the last datagram, in either direction
}

// known reports whether the guest may send a datagram of a flow, and renews the flow if it may.
func (f *flows) known(sent flow, now time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	last, ok := f.last[sent]
	ok = ok && now.Sub(last) < flowTimeout
	if ok {
		f.last[sent] = now
	}
	return ok
}

// note lets the guest answer the datagram in a frame that it receives.
func (f *flows) note(frame []byte) {
	p, ok := parse(frame)
	if !ok {
		return
	}
	if got, ok := p.flow(); ok {
		f.add(flow{from: got.to, to: got.from}, time.Now())
	}
}

func (f *flows) add(answer flow, now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.last == nil {
		f.last = make(map[flow]time.Time)
	}
	if _, ok := f.last[answer]; !ok && len(f.last) >= maxFlows {
		f.forget(now)
	}
	f.last[answer] = now
}

// forget removes the flows that have timed out, and then any others until half of maxFlows are
// left. The guest may answer the client of such a flow again after the client's next datagram.
func (f *flows) forget(now time.Time) {
	for flow, last := range f.last {
		if now.Sub(last) >= flowTimeout {
			delete(f.last, flow)
		}
	}
	for flow := range f.last {
		if len(f.last) <= maxFlows/2 {
			return
		}
		delete(f.last, flow)
	}
}
