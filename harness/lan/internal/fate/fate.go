// Package fate decides what a link does to a frame. The fate of a frame is a pure function of the seed, the
// link, the direction, the number of the frame and the parameters, so a run can be repeated from its seed.
package fate

import (
	"crypto/sha256"
	"encoding/binary"
	"time"
)

// Params are the faults of one direction of a link. See lan.Faults for their meaning.
type Params struct {
	Loss          float64
	BurstLoss     float64
	BurstLength   int
	Duplicate     float64
	Reorder       float64
	ReorderFrames int
	BitFlip       float64
	Truncate      float64
	Delay         time.Duration
	Jitter        time.Duration
	Rate          int64
	Queue         int
	MTU           int
}

// A Fate is what happens to a frame.
type Fate struct {
	Lost  bool
	Burst bool // the frame is lost in a burst

	Copies   int           // how many more frames with this content arrive
	Overtake int           // how many later frames arrive before this one
	Delay    time.Duration // how long the frame is on its way

	flip, cut       bool
	flipAt, cutFrom uint64
}

// A Stream decides the fates of the frames of one direction of a link.
type Stream struct{ key uint64 }

// NewStream returns the Stream of a link's direction.
func NewStream(seed uint64, link, direction string) Stream {
	text := binary.BigEndian.AppendUint64(nil, seed)
	text = append(text, link...)
	text = append(text, 0)
	sum := sha256.Sum256(append(text, direction...))
	return Stream{binary.BigEndian.Uint64(sum[:])}
}

// The draws of a frame. A new one goes to the end: the others keep their values then.
const (
	drawLoss = iota
	drawBurst
	drawBurstLength
	drawDuplicate
	drawReorder
	drawOvertake
	drawJitter
	drawFlip
	drawFlipAt
	drawTruncate
	drawCutFrom
)

// draw returns 64 random bits for a frame and a purpose.
func (s Stream) draw(frame uint64, purpose uint64) uint64 {
	return mix(mix(s.key+frame) + purpose*0x9e3779b97f4a7c15)
}

// mix is the finalizer of splitmix64 (Steele, Lea, Flood: "Fast Splittable Pseudorandom Number Generators").
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// happens reports whether a fault of a probability happens to a frame.
func (s Stream) happens(frame, purpose uint64, probability float64) bool {
	return probability > 0 && float64(s.draw(frame, purpose)>>11)/(1<<53) < probability
}

// upTo returns a number from 1 to most.
func (s Stream) upTo(frame, purpose uint64, most int) int {
	if most <= 1 {
		return 1
	}
	return 1 + int(s.draw(frame, purpose)%uint64(most))
}

// Of returns the fate of a frame. The first frame has the number 0.
func (s Stream) Of(frame uint64, p Params) Fate {
	f := Fate{Delay: p.Delay}
	if p.Jitter > 0 {
		f.Delay = max(0, p.Delay-p.Jitter+time.Duration(s.draw(frame, drawJitter)%uint64(2*p.Jitter+1)))
	}
	f.Burst = s.inBurst(frame, p)
	f.Lost = f.Burst || s.happens(frame, drawLoss, p.Loss)
	if f.Lost {
		return f
	}
	if s.happens(frame, drawDuplicate, p.Duplicate) {
		f.Copies = 1
	}
	if s.happens(frame, drawReorder, p.Reorder) {
		f.Overtake = s.upTo(frame, drawOvertake, p.ReorderFrames)
	}
	f.flip, f.flipAt = s.happens(frame, drawFlip, p.BitFlip), s.draw(frame, drawFlipAt)
	f.cut, f.cutFrom = s.happens(frame, drawTruncate, p.Truncate), s.draw(frame, drawCutFrom)
	return f
}

// inBurst reports whether a burst covers a frame. A burst begins at each frame with the probability
// BurstLoss, and is 1 to BurstLength frames long. So a frame's fate depends on a bounded number of draws,
// and not on the history of the link.
func (s Stream) inBurst(frame uint64, p Params) bool {
	for back := range uint64(max(1, p.BurstLength)) {
		if back > frame {
			return false
		}
		begin := frame - back
		if s.happens(begin, drawBurst, p.BurstLoss) && uint64(s.upTo(begin, drawBurstLength, p.BurstLength)) > back {
			return true
		}
	}
	return false
}

// Flip returns the number of the bit that is flipped in a frame of size bytes, or -1.
func (f Fate) Flip(size int) int {
	if !f.flip || size == 0 {
		return -1
	}
	return int(f.flipAt % uint64(8*size))
}

// Cut returns the size to which a frame of size bytes is cut, which is less than size. At least one byte
// remains.
func (f Fate) Cut(size int) int {
	if !f.cut || size < 2 {
		return size
	}
	return 1 + int(f.cutFrom%uint64(size-1))
}

// Harmless reports whether the frame passes at once and as it is.
func (f Fate) Harmless() bool {
	return !f.Lost && f.Copies == 0 && f.Overtake == 0 && f.Delay == 0 && !f.flip && !f.cut
}
