package traffic

import (
	"math"
	"math/bits"
	"sync/atomic"
	"time"
)

// subBits sets the precision. Every power of two is split into 2^subBits buckets of
// equal width, so that a bucket's width is at most 1/64 of its values.
const subBits = 6

// A histogram counts any number of latencies, from 1 ns to the longest Duration, in
// 29 KiB. Several goroutines may use it at once.
type histogram struct {
	counts [(64 - subBits) << subBits]atomic.Int64
	total  atomic.Int64
	max    atomic.Int64 // exact
}

func (h *histogram) add(d time.Duration) {
	v := max(int64(d), 0)
	h.counts[bucket(uint64(v))].Add(1)
	h.total.Add(1)
	for old := h.max.Load(); v > old && !h.max.CompareAndSwap(old, v); {
		old = h.max.Load()
	}
}

// quantile returns an upper bound for the share q of all latencies, such as 0.99. It is
// never below the exact quantile, and at most 1/64 (1.6 %) above it. It is exact for
// q = 1, and 0 if the histogram is empty.
func (h *histogram) quantile(q float64) time.Duration {
	rank := max(int64(math.Ceil(q*float64(h.total.Load()))), 1)
	greatest := h.max.Load()
	seen := int64(0)
	for i := range h.counts {
		if seen += h.counts[i].Load(); seen >= rank {
			return time.Duration(min(upper(i), greatest))
		}
	}
	return time.Duration(greatest)
}

// bucket returns the index for a value: the value itself below 2^subBits, then
// 2^subBits indices for each further bit.
func bucket(v uint64) int {
	shift := max(bits.Len64(v)-subBits-1, 0)
	return shift<<subBits + int(v>>shift)
}

// upper returns the largest value of a bucket.
func upper(i int) int64 {
	shift := max(i>>subBits-1, 0)
	return int64(uint64(i-shift<<subBits+1)<<shift - 1)
}
