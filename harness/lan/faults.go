package lan

import (
	"fmt"
	"time"

	"guesthouse.example/harness/lan/internal/fate"
	"guesthouse.example/harness/lan/internal/segment"
)

// Faults are what one direction of a link does to frames. Probabilities are from 0 to 1. Each fault has draws of its
// own, so another fault's probability does not change which frames it hits.
//
// What happens to a frame follows from the lan's seed, the link's name, the direction, the number of the frame in
// that direction, and the faults that are set when the frame enters the link. It does not depend on time, except
// for a full queue (Rate) and for a reordered frame that no other frame follows.
type Faults struct {
	// Loss is the probability that a frame is lost.
	Loss float64

	// BurstLoss is the probability that a burst begins at a frame. A burst loses 1 to BurstLength frames in a row.
	BurstLoss   float64
	BurstLength int

	// Duplicate is the probability that a frame arrives twice.
	Duplicate float64

	// Reorder is the probability that the next 1 to ReorderFrames frames arrive before a frame. A frame that too few
	// frames follow arrives 50 ms late. ReorderFrames is 1 if it is 0.
	Reorder       float64
	ReorderFrames int

	// BitFlip is the probability that one bit of a frame is flipped, and Truncate the probability that the end of a
	// frame is missing.
	BitFlip, Truncate float64

	// Delay is how long a frame takes. Jitter varies it, by up to Jitter in both directions. It does not reorder
	// frames.
	Delay, Jitter time.Duration

	// Rate is the speed of the link in bits a second; 0 is no limit. Queue is how many bytes wait for the link; a frame
	// for which it has no room is lost. 0 is 64 KiB.
	Rate  int64
	Queue int

	// MTU is the most bytes that a frame has besides its Ethernet header; 0 is 1500. Longer frames are lost.
	MTU int
}

// check refuses faults that no link can have.
func (f Faults) check() error {
	for _, p := range []struct {
		name  string
		value float64
	}{{"Loss", f.Loss}, {"BurstLoss", f.BurstLoss}, {"Duplicate", f.Duplicate}, {"Reorder", f.Reorder}, {"BitFlip", f.BitFlip}, {"Truncate", f.Truncate}} {
		if !(p.value >= 0 && p.value <= 1) {
			return fmt.Errorf("faults: %s %v: a probability is from 0 to 1", p.name, p.value)
		}
	}
	const longest = time.Hour
	switch {
	case f.BurstLength < 0 || f.BurstLength > 1000:
		return fmt.Errorf("faults: BurstLength %d: write 0 to 1000", f.BurstLength)
	case f.ReorderFrames < 0 || f.ReorderFrames > 1000:
		return fmt.Errorf("faults: ReorderFrames %d: write 0 to 1000", f.ReorderFrames)
	case f.Delay < 0 || f.Delay > longest:
		return fmt.Errorf("faults: Delay %v: write 0 to %v", f.Delay, longest)
	case f.Jitter < 0 || f.Jitter > longest:
		return fmt.Errorf("faults: Jitter %v: write 0 to %v", f.Jitter, longest)
	case f.Rate < 0:
		return fmt.Errorf("faults: Rate %d: write bits a second, or 0 for no limit", f.Rate)
	case f.Queue < 0:
		return fmt.Errorf("faults: Queue %d: write bytes, or 0 for 64 KiB", f.Queue)
	case f.MTU < 0 || f.MTU > 1500:
		return fmt.Errorf("faults: MTU %d: write 1 to 1500, or 0 for 1500", f.MTU)
	}
	return nil
}

// A Direction is a direction of a link.
type Direction int

const (
	Both Direction = iota
	Up             // from the machine to the switch
	Down           // from the switch to the machine
)

// each returns the directions that d stands for.
func (d Direction) each() []segment.Direction {
	switch d {
	case Up:
		return []segment.Direction{segment.Up}
	case Down:
		return []segment.Direction{segment.Down}
	}
	return []segment.Direction{segment.Up, segment.Down}
}

// A Link connects a machine with the switch.
type Link struct{ link *segment.Link }

// Link returns the link of the machine with a name, also before the machine joins. The name host is that of this
// process.
func (l *Lan) Link(name string) *Link { return &Link{l.link(name)} }

// link returns a link. A new one has the faults of the Config.
func (l *Lan) link(name string) *segment.Link {
	l.mu.Lock()
	defer l.mu.Unlock()
	link, made := l.segment.Link(name)
	if made && name != HostName {
		for _, d := range Both.each() {
			link.SetFaults(d, fate.Params(l.config.Faults))
		}
	}
	return link
}

// SetFaults sets the faults of a direction for the frames that enter the link from now on.
func (l *Link) SetFaults(d Direction, f Faults) error {
	if err := f.check(); err != nil {
		return err
	}
	for _, d := range d.each() {
		l.link.SetFaults(d, fate.Params(f))
	}
	return nil
}

// Faults returns the faults of a direction; for Both, those of Up.
func (l *Link) Faults(d Direction) Faults { return Faults(l.link.Faults(d.each()[0])) }

// Cut cuts the cable: all frames are lost, also those on their way. Mend repairs it. The machine does not notice
// either: Machine.SetLink takes its carrier away.
func (l *Link) Cut() { l.link.SetUp(false) }

// Mend repairs the cable.
func (l *Link) Mend() { l.link.SetUp(true) }

// Stats counts frames of a link.
type Stats struct {
	Frames     uint64 // that entered the link
	Bytes      uint64 // of those frames
	Lost       uint64 // by Loss, BurstLoss and Cut
	TooBig     uint64 // for the MTU
	Overflowed uint64 // because the queue was full
	Duplicated uint64
	Reordered  uint64
	Damaged    uint64 // with a flipped bit, or truncated
}

// Stats returns what has happened to the frames of a direction; for Both, of Up.
func (l *Link) Stats(d Direction) Stats { return Stats(l.link.Stats(d.each()[0])) }

// Partition separates each machine of a from each machine of b: no frame passes between them. The name host is that
// of this process. Partitions add up until Heal.
func (l *Lan) Partition(a, b []string) {
	for _, a := range a {
		for _, b := range b {
			l.segment.Cut(a, b)
		}
	}
}

// Heal undoes all partitions.
func (l *Lan) Heal() { l.segment.Mend() }
