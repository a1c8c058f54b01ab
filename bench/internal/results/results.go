// Package results collects a benchmark's measurements, and names the host.
package results

import (
	"fmt"
	"iter"
	"math"
	"os"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// A Summary sums up the runs of one key. The numbers are null in JSON if every run failed.
type Summary struct {
	Median *float64 `json:"median"`
	Min    *float64 `json:"min"`
	Max    *float64 `json:"max"`
	Runs   int      `json:"runs"`             // how many runs succeeded
	Failed string   `json:"failed,omitempty"` // the error of the first run that failed
}

// Results are values by key. The keys are in the order of their first use.
type Results[K comparable] struct {
	keys   []K
	values map[K][]float64
	failed map[K]string
	scale  float64
}

// New returns empty results that keep the given number of decimals.
func New[K comparable](decimals int) *Results[K] {
	return &Results[K]{values: map[K][]float64{}, failed: map[K]string{}, scale: math.Pow10(decimals)}
}

// Add adds the value of a run that succeeded.
func (r *Results[K]) Add(k K, value float64) {
	r.seen(k)
	r.values[k] = append(r.values[k], value)
}

// Fail adds a run that failed.
func (r *Results[K]) Fail(k K, err error) {
	r.seen(k)
	if r.failed[k] == "" {
		r.failed[k] = err.Error()
	}
}

func (r *Results[K]) seen(k K) {
	if !slices.Contains(r.keys, k) {
		r.keys = append(r.keys, k)
	}
}

// All returns every key and its summary.
func (r *Results[K]) All() iter.Seq2[K, Summary] {
	return func(yield func(K, Summary) bool) {
		for _, k := range r.keys {
			if !yield(k, r.summary(k)) {
				return
			}
		}
	}
}

func (r *Results[K]) summary(k K) Summary {
	values := r.values[k]
	s := Summary{Runs: len(values), Failed: r.failed[k]}
	if len(values) > 0 {
		middle, least, greatest := r.round(Median(values)), r.round(slices.Min(values)), r.round(slices.Max(values))
		s.Median, s.Min, s.Max = &middle, &least, &greatest
	}
	return s
}

// round rounds a value. It adds zero because JSON would show -0 otherwise.
func (r *Results[K]) round(v float64) float64 { return math.Round(v*r.scale)/r.scale + 0 }

// Median returns the median. For an even number of values it returns the mean of the two middle ones,
// and for no values NaN.
func Median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	if n == 0 {
		return math.NaN()
	}
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// Machine names the host: its processor, cores, kernel and Go.
func Machine() string {
	model := "unknown CPU"
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(text)) {
			name, value, _ := strings.Cut(line, ":")
			if strings.TrimSpace(name) == "model name" {
				model = strings.TrimSpace(value)
				break
			}
		}
	}
	kernel := "unknown"
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		kernel, _, _ = strings.Cut(unix.ByteSliceToString(u.Release[:]), "-") // without its builder's name
	}
	return fmt.Sprintf("%s, %d cores, Linux %s, %s", model, runtime.NumCPU(), kernel, runtime.Version())
}
