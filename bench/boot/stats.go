package main

import (
	"math"
	"slices"
)

// A row is one line of boot.json. The numbers are null where every run failed.
type row struct {
	Case    string   `json:"case"`
	Harness string   `json:"harness"`
	Metric  string   `json:"metric"`
	Median  *float64 `json:"median"`
	Min     *float64 `json:"min"`
	Max     *float64 `json:"max"`
	Runs    int      `json:"runs"` // those that succeeded
	Failed  string   `json:"failed,omitempty"`
}

type key struct{ kase, harness, metric string }

// results are the rows as they are collected, in the order of their first value.
type results struct {
	keys   []key
	values map[key][]float64
	failed map[key]string // the first message
}

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
		values := r.values[k]
		out := row{Case: k.kase, Harness: k.harness, Metric: k.metric, Runs: len(values), Failed: r.failed[k]}
		if len(values) > 0 {
			middle, least, greatest := round(median(values)), round(slices.Min(values)), round(slices.Max(values))
			out.Median, out.Min, out.Max = &middle, &least, &greatest
		}
		rows = append(rows, out)
	}
	return rows
}

// median of an even number of values is the mean of the two in the middle.
func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// round keeps one decimal.
func round(v float64) float64 { return math.Round(v*10) / 10 }
