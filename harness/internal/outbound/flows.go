package outbound

import (
	"sync"
	"time"
)

const (
	flowLasts = 4 * time.Minute // after its last datagram, as in libslirp
	mostFlows = 1 << 14
)

// flows are those of the datagrams that the guest may send, as answers. Their number is bounded.
type flows struct {
	mu   sync.Mutex
	last map[flow]time.Time // when there was a datagram, in either direction
}

// known says whether the guest may send such a datagram.
func (f *flows) known(sent flow, now time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	last, ok := f.last[sent]
	ok = ok && now.Sub(last) < flowLasts
	if ok {
		f.last[sent] = now
	}
	return ok
}

// note lets the guest answer a datagram that it is sent.
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
	if _, ok := f.last[answer]; !ok && len(f.last) >= mostFlows {
		f.forget(now)
	}
	f.last[answer] = now
}

// forget makes room: those that are over go, or if there are few of them others too, whose
// clients are known again after their next datagram.
func (f *flows) forget(now time.Time) {
	for flow, last := range f.last {
		if now.Sub(last) >= flowLasts {
			delete(f.last, flow)
		}
	}
	for flow := range f.last {
		if len(f.last) <= mostFlows/2 {
			return
		}
		delete(f.last, flow)
	}
}
