// Package tsc knows how fast the processor's time-stamp counter (TSC) counts.
//
// Under emulation on such a processor QEMU gives an x86 guest that counter. A
// guest's kernel that has to find out its rate compares it with an emulated timer, and
// where the host is busy it errs: in 2 of 200 boots at a load of 12 on two cores Linux 6.1
// was wrong by a factor of 20 to 42, and its clocks ran that much too fast.
package tsc

import (
	"sync"
	"time"
)

// MHz returns the rate in MHz, rounded so that it is the same in every process, or 0 on a
// processor that has no such counter. The first call takes some milliseconds.
var MHz = sync.OnceValue(func() int {
	if !available {
		return 0
	}
	return int(rate(read, 2*time.Millisecond) + 0.5)
})

// rate counts for a while, in MHz.
func rate(read func() (uint64, time.Time), during time.Duration) float64 {
	ticks, at := read()
	time.Sleep(during)
	moreTicks, later := read()
	return float64(moreTicks-ticks) / float64(later.Sub(at).Nanoseconds()) * 1000
}

// read reads both clocks at one moment: of several tries the one that took the shortest, as
// this thread can lose its processor between the two.
func read() (ticks uint64, at time.Time) {
	shortest := ^uint64(0)
	for range 16 {
		before := count()
		now := time.Now()
		took := count() - before
		if took < shortest {
			shortest, ticks, at = took, before+took/2, now
		}
	}
	return ticks, at
}
