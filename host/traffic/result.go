package traffic

import (
	"encoding/json"
	"fmt"
	"time"
)

// A Result is what Load measured. Its JSON form names the units: elapsed_s,
// rate_per_s, and the latencies as p50_us, p90_us, p99_us and max_us.
type Result struct {
	// The configuration, with the defaults filled in.
	Network string `json:"network"`
	Clients int    `json:"clients"`
	Window  int    `json:"window"`
	Bytes   int    `json:"bytes"`

	// Sent counts requests: Received, Lost, and those in flight when the context
	// ended. Received counts correct answers within the timeout. Lost counts
	// requests without an answer within the timeout or on a broken connection.
	Sent     int64 `json:"sent"`
	Received int64 `json:"received"`
	Lost     int64 `json:"lost"`

	// Errors counts wrong answers (altered, duplicate, or after the timeout) and
	// broken connections. Load's error wraps the first.
	Errors int64 `json:"errors"`

	// Elapsed is the time from the start to the last correct answer, so that
	// waiting for lost requests does not lower the rate.
	Elapsed time.Duration `json:"-"`

	// The latencies of the Received requests, each from the write of the request
	// until the whole answer is read. P50, P90 and P99 are never below the exact
	// quantile and at most 1/64 (1.6 %) above it. Max is exact.
	P50 time.Duration `json:"-"`
	P90 time.Duration `json:"-"`
	P99 time.Duration `json:"-"`
	Max time.Duration `json:"-"`
}

// Rate returns the correct answers per second.
func (r Result) Rate() float64 {
	if r.Elapsed <= 0 {
		return 0
	}
	return float64(r.Received) / r.Elapsed.Seconds()
}

// String returns one line for a log.
func (r Result) String() string {
	return fmt.Sprintf("%s, %d clients, window %d, %d bytes: %d sent, %d received, %d lost, %d errors in %v, %.0f/s; "+
		"latency p50 %v, p90 %v, p99 %v, max %v",
		r.Network, r.Clients, r.Window, r.Bytes, r.Sent, r.Received, r.Lost, r.Errors, brief(r.Elapsed), r.Rate(),
		brief(r.P50), brief(r.P90), brief(r.P99), brief(r.Max))
}

// brief rounds to three digits.
func brief(d time.Duration) time.Duration {
	unit := time.Duration(1)
	for d/unit >= 1000 {
		unit *= 10
	}
	return d.Round(unit)
}

// MarshalJSON returns the JSON form.
func (r Result) MarshalJSON() ([]byte, error) {
	type counts Result // the same fields without this method
	us := func(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
	return json.Marshal(struct {
		counts
		Elapsed float64 `json:"elapsed_s"`
		Rate    float64 `json:"rate_per_s"`
		P50     float64 `json:"p50_us"`
		P90     float64 `json:"p90_us"`
		P99     float64 `json:"p99_us"`
		Max     float64 `json:"max_us"`
	}{counts(r), r.Elapsed.Seconds(), r.Rate(), us(r.P50), us(r.P90), us(r.P99), us(r.Max)})
}
