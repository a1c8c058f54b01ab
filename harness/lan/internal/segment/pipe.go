package segment

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"time"

	"guesthouse.example/harness/lan/internal/fate"
)

// An Event is a frame that enters one direction of a link.
type Event struct {
	Direction Direction
	Number    uint64 // of the frame in its direction, from 0
	Frame     []byte // as it entered; valid until the call returns
	Fate      string // "" for a frame that passes at once and as it is
}

// Stats counts frames of one direction of a link.
type Stats struct {
	Frames     uint64 // that entered the link
	Bytes      uint64 // of those frames
	Lost       uint64 // by Loss, BurstLoss and a link that is down
	TooBig     uint64 // for the MTU
	Overflowed uint64 // because the queue was full
	Duplicated uint64
	Reordered  uint64
	Damaged    uint64 // with a flipped bit, or truncated
}

const (
	// maxWaiting bounds the bytes of frames that are on their way in one direction.
	maxWaiting = 4 << 20

	// defaultQueue is the size in bytes of the queue before a link with a rate.
	defaultQueue = 64 << 10

	// heldWithin is how long a reordered frame waits for the frames that overtake it.
	heldWithin = 50 * time.Millisecond

	// maxTogether bounds the frames that leave at once after they have waited, because a link that is cut loses only
	// those that still wait.
	maxTogether = 64
)

// A pipe is one direction of a link. Frames leave it in the order in which they entered it, except for those
// that are reordered.
type pipe struct {
	stream fate.Stream
	out    func(frames [][]byte) // called without the lock, and by one goroutine at a time
	watch  func(Event)           // called with the lock

	mu       sync.Mutex
	params   fate.Params
	cut      bool
	closed   bool
	stats    Stats
	line     []scheduled // in the order of due
	held     []held
	waiting  int       // bytes of the frames in line and held
	draining bool      // a goroutine calls out
	leaving  [][]byte  // for the calls of out; it belongs to the goroutine that has set draining
	free     time.Time // when the rate lets the next frame begin
	timer    *time.Timer
}

// A scheduled frame leaves the pipe when it is due.
type scheduled struct {
	frame []byte
	due   time.Time
}

// A held frame leaves the pipe after the frame with the number last, or at the time late.
type held struct {
	frame []byte
	last  uint64
	late  time.Time
}

func (p *pipe) setFaults(f fate.Params) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.params = f
}

func (p *pipe) setUp(up bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = !up
	if !up {
		p.drop()
	}
}

// clear drops the frames on their way.
func (p *pipe) clear() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.drop()
}

func (p *pipe) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	p.drop()
}

func (p *pipe) drop() {
	p.line, p.held, p.waiting = nil, nil, 0
	if p.timer != nil {
		p.timer.Stop()
	}
}

// send lets frames enter the pipe. It does not keep the frames.
func (p *pipe) send(frames [][]byte) {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return
	}
	leaving := p.leaving[:0]
	for _, frame := range frames {
		if len(frame) == 0 {
			continue
		}
		number := p.stats.Frames
		p.stats.Frames++
		p.stats.Bytes += uint64(len(frame))
		f := p.stream.Of(number, p.params)
		if !p.draining && len(p.line)+len(p.held) == 0 && p.passes(f, frame) {
			p.note(number, frame, "")
			leaving = append(leaving, frame)
			continue
		}
		now := time.Now()
		p.note(number, frame, p.admit(number, now, f, frame))
		p.release(number, now)
	}
	if p.draining {
		p.mu.Unlock()
		return
	}
	p.draining, p.leaving = true, leaving
	p.leave()
	p.drain()
}

// passes reports whether a frame goes through an empty pipe at once and as it is.
func (p *pipe) passes(f fate.Fate, frame []byte) bool {
	return f.Harmless() && !p.cut && p.params.Rate == 0 && len(frame) <= p.biggest()
}

// leave gives the leaving frames to out. The caller holds the lock, which leave gives up meanwhile.
func (p *pipe) leave() {
	if len(p.leaving) == 0 {
		return
	}
	p.mu.Unlock()
	p.out(p.leaving)
	p.mu.Lock()
	clear(p.leaving)
	p.leaving = p.leaving[:0]
}

func (p *pipe) note(number uint64, frame []byte, what string) {
	if p.watch != nil {
		p.watch(Event{Number: number, Frame: frame, Fate: what})
	}
}

// biggest returns the size of the biggest frame that passes.
func (p *pipe) biggest() int {
	mtu := p.params.MTU
	if mtu == 0 {
		mtu = defaultMTU
	}
	return mtu + headerSize + tagSize
}

// admit schedules a frame, unless it is lost, and returns its fate in words.
func (p *pipe) admit(number uint64, now time.Time, f fate.Fate, frame []byte) string {
	switch {
	case p.cut:
		p.stats.Lost++
		return "lost: the link is down"
	case len(frame) > p.biggest():
		p.stats.TooBig++
		return "lost: longer than the MTU"
	case f.Burst:
		p.stats.Lost++
		return "lost in a burst"
	case f.Lost:
		p.stats.Lost++
		return "lost"
	}
	content, words := p.damage(f, bytes.Clone(frame))
	due, queued := p.departure(now, len(content))
	if !queued || p.waiting+(1+f.Copies)*len(content) > maxWaiting {
		p.stats.Overflowed++
		return "lost: the queue is full"
	}
	due = due.Add(f.Delay)
	if f.Delay > 0 {
		words = append(words, fmt.Sprintf("delayed by %v", f.Delay))
	}
	if f.Copies > 0 {
		p.stats.Duplicated++
		words = append(words, "duplicated")
	}
	if f.Overtake > 0 {
		p.stats.Reordered++
		words = append(words, fmt.Sprintf("overtaken by %d", f.Overtake))
	}
	for range 1 + f.Copies {
		p.waiting += len(content)
		if f.Overtake > 0 {
			p.hold(held{content, number + uint64(f.Overtake), due.Add(heldWithin)})
		} else {
			p.schedule(content, due)
		}
	}
	return strings.Join(words, ", ")
}

// damage flips a bit of a frame and truncates it, if that is its fate.
func (p *pipe) damage(f fate.Fate, frame []byte) (damaged []byte, words []string) {
	if bit := f.Flip(len(frame)); bit >= 0 {
		frame[bit/8] ^= 0x80 >> (bit % 8)
		words = append(words, fmt.Sprintf("bit %d flipped", bit))
	}
	if size := f.Cut(len(frame)); size < len(frame) {
		frame = frame[:size]
		words = append(words, fmt.Sprintf("truncated to %d bytes", size))
	}
	if len(words) > 0 {
		p.stats.Damaged++
	}
	return frame, words
}

// departure returns when the last bit of a frame leaves the queue, or false if the queue is full.
func (p *pipe) departure(now time.Time, size int) (at time.Time, ok bool) {
	if p.params.Rate <= 0 {
		return now, true
	}
	queue := p.params.Queue
	if queue == 0 {
		queue = defaultQueue
	}
	if p.free.Before(now) {
		p.free = now
	}
	ahead := p.free.Sub(now).Seconds() * float64(p.params.Rate) / 8 // bytes
	if ahead > 0 && ahead+float64(size) > float64(queue) {
		return now, false
	}
	p.free = p.free.Add(time.Duration(float64(size) * 8 / float64(p.params.Rate) * float64(time.Second)))
	return p.free, true
}

// schedule adds a frame to the line. It is never due before the frames that entered earlier.
func (p *pipe) schedule(frame []byte, due time.Time) {
	if n := len(p.line); n > 0 && due.Before(p.line[n-1].due) {
		due = p.line[n-1].due
	}
	p.line = append(p.line, scheduled{frame, due})
}

// hold keeps a frame that others are to overtake. The held frames stay in the order of their times.
func (p *pipe) hold(h held) {
	if n := len(p.held); n > 0 && h.late.Before(p.held[n-1].late) {
		h.late = p.held[n-1].late
	}
	p.held = append(p.held, h)
}

// release schedules the held frames that enough frames have overtaken when the one with a number has entered.
func (p *pipe) release(number uint64, now time.Time) {
	kept := p.held[:0]
	for _, h := range p.held {
		if h.last <= number {
			p.schedule(h.frame, now)
		} else {
			kept = append(kept, h)
		}
	}
	p.held = kept
}

// drain delivers the frames that are due, and sets the timer for the next one. The caller holds the lock and
// has set draining; drain releases both.
func (p *pipe) drain() {
	defer p.mu.Unlock()
	for len(p.line)+len(p.held) > 0 {
		now := time.Now()
		for len(p.held) > 0 && !p.held[0].late.After(now) {
			p.schedule(p.held[0].frame, now)
			p.held = p.held[1:]
		}
		for len(p.line) > 0 && !p.line[0].due.After(now) && len(p.leaving) < maxTogether {
			frame := p.line[0].frame
			p.line[0].frame = nil
			p.line = p.line[1:]
			p.waiting -= len(frame)
			p.leaving = append(p.leaving, frame)
		}
		if len(p.leaving) == 0 {
			break
		}
		p.leave()
	}
	p.draining = false
	var next time.Time
	if len(p.held) > 0 {
		next = p.held[0].late
	}
	if len(p.line) > 0 && (next.IsZero() || p.line[0].due.Before(next)) {
		next = p.line[0].due
	}
	if next.IsZero() || p.closed {
		return
	}
	if p.timer == nil {
		p.timer = time.AfterFunc(time.Until(next), p.wake)
	} else {
		p.timer.Reset(time.Until(next))
	}
}

// wake delivers the frames that are due at the timer's time.
func (p *pipe) wake() {
	p.mu.Lock()
	if p.draining || p.closed {
		p.mu.Unlock()
		return
	}
	p.draining = true
	p.drain()
}
