package main

import "guesthouse.example/bench/internal/results"

// A row is one line of boot.json.
type row struct {
	Case    string `json:"case"`
	Harness string `json:"harness"`
	Metric  string `json:"metric"`
	results.Summary
}

type key struct{ kase, harness, metric string }

func newResults() *results.Results[key] { return results.New[key](1) }

func rows(r *results.Results[key]) []row {
	all := []row{} // not null in JSON
	for k, s := range r.All() {
		all = append(all, row{k.kase, k.harness, k.metric, s})
	}
	return all
}
