// Package suite runs the cases of a benchmark in turn, several times, and sums their results up. The runs
// are interleaved, so that a disturbance of the host affects every case.
package suite

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"guesthouse.example/bench/internal/results"
)

// A Case is one thing that a benchmark measures.
type Case struct {
	Name    string
	Harness string // whose measurement it is: a case may have a peer's too
	Metrics []string

	// Run makes one measurement and returns the value of each metric.
	Run func(ctx context.Context) (map[string]float64, error)
}

// Select returns the cases whose names begin with one of the prefixes, which commas separate. Without a
// prefix it returns all.
func Select(all []Case, prefixes string) (cases []Case, err error) {
	for _, c := range all {
		if prefixes == "" || hasPrefix(c.Name, prefixes) {
			cases = append(cases, c)
		}
	}
	if len(cases) == 0 {
		return nil, fmt.Errorf("-cases %s: no case has such a name", prefixes)
	}
	return cases, nil
}

func hasPrefix(name, prefixes string) bool {
	for prefix := range strings.SplitSeq(prefixes, ",") {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

// A Row is one line of a benchmark's JSON: a metric of a case.
type Row struct {
	Case    string `json:"case"`
	Harness string `json:"harness"`
	Metric  string `json:"metric"`
	results.Summary
}

// Rows are the results of a run.
type Rows []Row

type key struct{ kase, harness, metric string }

// Run runs every case so many times, and each run for at most within. The error of a run is in its Row. Run
// fails if ctx ends, whose results would be incomplete.
func Run(ctx context.Context, cases []Case, runs int, within time.Duration) (Rows, error) {
	if runs < 1 {
		return nil, fmt.Errorf("-runs %d: the minimum is 1", runs)
	}
	begin := time.Now()
	found := results.New[key](1)
	for i := range runs {
		for _, c := range cases {
			measure(ctx, c, within, found)
			if ctx.Err() != nil {
				return nil, errors.New("interrupted: nothing is written")
			}
		}
		fmt.Printf("run %d of %d after %v\n", i+1, runs, time.Since(begin).Round(time.Second))
	}
	rows := Rows{} // not null in JSON
	for k, s := range found.All() {
		rows = append(rows, Row{k.kase, k.harness, k.metric, s})
	}
	return rows, nil
}

func measure(ctx context.Context, c Case, within time.Duration, found *results.Results[key]) {
	ctx, cancel := context.WithTimeoutCause(ctx, within, fmt.Errorf("not within %v", within))
	defer cancel()
	values, err := c.Run(ctx)
	for _, metric := range c.Metrics {
		k := key{c.Name, c.Harness, metric}
		if err != nil {
			found.Fail(k, err)
		} else {
			found.Add(k, values[metric])
		}
	}
}

// At returns the row of a metric.
func (rows Rows) At(name, harness, metric string) (Row, bool) {
	for _, r := range rows {
		if r.Case == name && r.Harness == harness && r.Metric == metric {
			return r, true
		}
	}
	return Row{}, false
}

// Value returns the median of a metric. It reports false if no run has succeeded.
func (rows Rows) Value(name, harness, metric string) (float64, bool) {
	r, _ := rows.At(name, harness, metric)
	if r.Median == nil {
		return 0, false
	}
	return *r.Median, true
}

// Median returns the median of a metric as a table's cell: a dash if no run has succeeded.
func (rows Rows) Median(name, harness, metric string) string {
	v, ok := rows.Value(name, harness, metric)
	if !ok {
		return "–"
	}
	return fmt.Sprintf("%.0f", v)
}

// Cell returns the median with the least and the greatest value in brackets.
func (r Row) Cell() string {
	if r.Median == nil {
		return "**failed**"
	}
	return fmt.Sprintf("%.0f (%.0f–%.0f)", *r.Median, *r.Min, *r.Max)
}

// Failures returns a sentence for each case that has a failed run. A run that fails has no value of any metric.
func (rows Rows) Failures(runs int) (failures []string) {
	for _, r := range rows {
		if r.Failed == "" {
			continue
		}
		failure := fmt.Sprintf("%s of %s succeeded in %d of %d runs; its first failure: %s",
			r.Case, r.Harness, r.Runs, runs, strings.Join(strings.Fields(r.Failed), " "))
		if !slices.Contains(failures, failure) {
			failures = append(failures, failure)
		}
	}
	return failures
}
