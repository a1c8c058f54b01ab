package main

import (
	"math"
	"slices"
)

// A row is one line of socket.json. The numbers are null where every run failed.
type row struct {
	Case   string   `json:"case"`
	Server string   `json:"server"`
	Metric string   `json:"metric"`
	Median *float64 `json:"median"`
	Min    *float64 `json:"min"`
	Max    *float64 `json:"max"`
	Runs   int      `json:"runs"` // those that succeeded
	Failed string   `json:"failed,omitempty"`
}

// results are the rows as they are collected, in the order of their first
// value.
type results struct {
	keys   []key
	values map[key][]float64
	failed map[key]string // the first message
}

type key struct{ kase, server, metric string }

func newResults() *results {
	return &results{values: map[key][]float64{}, failed: map[key]string{}}
}

func (r *results) add(k key, value float64) {
	r.seen(k)
	r.values[k] = append(r.values[k], value)
}

func (r *results) fail(k key, err error) {
	r.seen(k)
	if r.failed[k] == "" {
		r.failed[k] = err.Error()
	}
}

func (r *results) seen(k key) {
	if !slices.Contains(r.keys, k) {
		r.keys = append(r.keys, k)
	}
}

func (r *results) rows() []row {
	rows := []row{} // not null in JSON
	for _, k := range r.keys {
		rows = append(rows, r.row(k))
	}
	return rows
}

func (r *results) row(k key) row {
	values := r.values[k]
	out := row{Case: k.kase, Server: k.server, Metric: k.metric, Runs: len(values), Failed: r.failed[k]}
	if len(values) > 0 {
		middle, least, greatest := round(median(values)), round(slices.Min(values)), round(slices.Max(values))
		out.Median, out.Min, out.Max = &middle, &least, &greatest
	}
	return out
}

// median of an even number of values is the mean of the two in the middle.
func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	if n == 0 {
		return math.NaN()
	}
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// quantile returns the least of the sorted values that at least the share q of
// them does not exceed; 0 for none.
func quantile(sorted []uint32, q float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	rank := int(math.Ceil(q*float64(len(sorted)))) - 1
	return float64(sorted[max(rank, 0)])
}

// round keeps three decimals: less than any of the measurements resolves. Adding
// zero makes -0, which JSON would show, 0.
func round(v float64) float64 { return math.Round(v*1000)/1000 + 0 }
