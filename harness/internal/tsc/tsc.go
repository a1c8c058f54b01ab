// Package tsc measures the rate of the host processor's time-stamp counter (TSC).
//
// An emulated x86 guest reads the host's counter, and the harness tells the guest's kernel its rate. A
// kernel that is not told measures the rate against an emulated timer, and measures it wrong on a busy
// host: in 2 of 200 boots at a load of 12 on two cores, Linux 6.1 was wrong by a factor of 20 to 42, and
// its clocks ran too fast by that factor.
package tsc

import (
	"sync"
	"time"
)

// MHz returns the rate in MHz, or 0 on a processor without the counter. It rounds the rate, so that
// every process gets the same value. The first call takes some milliseconds.
var MHz = sync.OnceValue(func() int {
	if !available {
		return 0
	}
	return int(rate(read, 2*time.Millisecond) + 0.5)
})

// rate measures the rate in MHz for a duration.
func rate(read func() (uint64, time.Time), during time.Duration) float64 {
	ticks, at := read()
	time.Sleep(during)
	moreTicks, later := read()
	return float64(moreTicks-ticks) / float64(later.Sub(at).Nanoseconds()) * 1000
}

// read returns the counter and the time at one moment. It reads both several times and returns the
// readings that took the shortest time, because the thread may lose its processor between the two.
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
