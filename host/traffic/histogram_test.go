package traffic

import (
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestHistogramBuckets(t *testing.T) {
	// Each bucket ends where the next begins, and the last holds the greatest Duration.
	var h histogram
	for i := range h.counts {
		assert.Equal(t, i, bucket(uint64(upper(i))), "last value of bucket %d", i)
		if i+1 < len(h.counts) {
			assert.Equal(t, i+1, bucket(uint64(upper(i))+1), "first value after bucket %d", i)
		}
	}
	assert.Equal(t, int64(math.MaxInt64), upper(len(h.counts)-1))
}

// The quantiles are as exact as documented, compared with sorted latencies from nanoseconds to days.
func TestHistogramQuantile(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, n := range []int{1, 2, 3, 10, 1000, 30000} {
		var h histogram
		all := make([]time.Duration, n)
		for i := range all {
			all[i] = time.Duration(random.Uint64() >> (17 + random.IntN(47)))
			h.add(all[i])
		}
		slices.Sort(all)
		for _, q := range []float64{0, 0.001, 0.25, 0.5, 0.9, 0.99, 0.999, 1} {
			exact := all[max(int(math.Ceil(q*float64(n))), 1)-1]
			got := h.quantile(q)
			assert.GreaterOrEqual(t, got, exact, "n %d q %v", n, q)
			assert.LessOrEqual(t, got, exact+exact/64, "n %d q %v", n, q)
		}
		assert.Equal(t, all[n-1], h.quantile(1))
	}
}

func TestHistogramEdges(t *testing.T) {
	var h histogram
	assert.Zero(t, h.quantile(0.5), "empty")
	h.add(-1) // a monotonic clock never goes back, but such a latency must count too
	assert.Zero(t, h.quantile(1))
	h.add(math.MaxInt64)
	assert.Equal(t, time.Duration(math.MaxInt64), h.quantile(0.9))
	assert.Equal(t, int64(2), h.total.Load())
}

func TestHistogramConcurrent(t *testing.T) {
	var h histogram
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 1000 {
				h.add(time.Duration(g*1000 + i))
			}
		})
	}
	wg.Wait()
	assert.Equal(t, int64(8000), h.total.Load())
	assert.Equal(t, time.Duration(7999), h.quantile(1))
}

func TestBrief(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", 999: "999ns", 1234: "1.23µs", 12345678: "12.3ms", 1002 * time.Millisecond: "1s", 61234 * time.Millisecond: "1m1.2s",
	} {
		assert.Equal(t, want, brief(d).String())
	}
}
