package main

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"guesthouse.example/bench/internal/publish"
)

// small returns the cases that the README shows. With small messages, the server makes the largest
// difference.
func small() (cases []benchCase) {
	for _, c := range newPlan(false).cases {
		if c.bytes == 64 {
			cases = append(cases, c)
		}
	}
	return cases
}

// complete returns an error for a run that lacks a bar of the chart.
func complete(text []byte) error {
	var all []row
	if err := json.Unmarshal(text, &all); err != nil {
		return err
	}
	for _, c := range small() {
		for _, s := range servers {
			has := func(r row) bool { return r.Case == c.String() && r.Server == s.name && r.Metric == cpuPerEcho }
			if s.speaks(c.protocol()) && !slices.ContainsFunc(all, has) {
				return fmt.Errorf("%s of %s has no result: the run left it out", c, s.name)
			}
		}
	}
	return nil
}

// pages returns the pages that show the newest results.
func pages(root string) (publish.Pages, error) {
	results, err := publish.Read(filepath.Join(root, "bench", "socket"))
	if err != nil {
		return nil, err
	}
	r := &report{bench: &bench{servers: servers}, byKey: map[key]row{}}
	if err := json.Unmarshal(results.JSON, &r.rows); err != nil {
		return nil, fmt.Errorf("results of socket: %w", err)
	}
	for _, row := range r.rows {
		r.byKey[key{row.Case, row.Server, row.Metric}] = row
	}
	c := r.cpuChart(small())
	c.Title = "CPU time for each echo, in µs (less is better); a panel is protocol/clients/bytes"
	c.Subtitle = fmt.Sprintf("%s; medians of %d runs; %s", results.Machine, results.Runs, results.Date)
	p := publish.Pages{}
	p.Chart("docs/img/cpu-per-echo", c)
	err = p.Section(root, filepath.Join("bench", "socket", "README.md"), section(results.Report))
	return p, err
}

// section returns the part of README.md that shows the results: the report without its title and
// without the tables of single cases.
func section(report string) string {
	sections := strings.Split(report, "\n## ")
	_, head, _ := strings.Cut(sections[0], "\n")
	kept := []string{head}
	for _, s := range sections[1:] {
		if strings.HasPrefix(s, "Memory") || strings.HasPrefix(s, "A TCP client") {
			kept = append(kept, s)
		}
	}
	return strings.TrimRight(strings.Join(kept, "\n### "), "\n") + "\n\n[results.md](results.md) is the whole report.\n\n"
}
