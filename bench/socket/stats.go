package main

import (
	"math"

	"guesthouse.example/bench/internal/results"
)

// A row is one line of socket.json.
type row struct {
	Case   string `json:"case"`
	Server string `json:"server"`
	Metric string `json:"metric"`
	results.Summary
}

type key struct{ kase, server, metric string }

// newResults returns results with three decimals. No measurement is more precise.
func newResults() *results.Results[key] { return results.New[key](3) }

func rows(r *results.Results[key]) []row {
	all := []row{} // not null in JSON
	for k, s := range r.All() {
		all = append(all, row{k.kase, k.server, k.metric, s})
	}
	return all
}

// quantile returns the smallest of the sorted values v such that at least the share q of them is not
// greater than v. Without values it returns 0.
func quantile(sorted []uint32, q float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	rank := int(math.Ceil(q*float64(len(sorted)))) - 1
	return float64(sorted[max(rank, 0)])
}
