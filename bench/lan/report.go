package main

import (
	"fmt"
	"strings"

	"guesthouse.example/bench/internal/chart"
	"guesthouse.example/bench/internal/publish"
	"guesthouse.example/bench/internal/results"
	"guesthouse.example/bench/internal/suite"
	"guesthouse.example/internal/svg"
)

// files returns lan.md and lan.svg.
func files(r suite.Report) map[string]string {
	run := publish.Run{Machine: results.Machine(), Date: r.Begin.UTC().Format("2006-01-02"), Runs: r.Runs}
	return map[string]string{"md": markdown(r), "svg": string(barChart(r.Rows, run).SVG(svg.Light))}
}

func markdown(r suite.Report) string {
	var w strings.Builder
	w.WriteString(r.Head("Package lan beside QEMU's user network and passt", "All machines are of "+target+", are emulated (TCG), and are restored from templates."))
	w.WriteString("| case | network | µs | ms | MB/s or echoes a second | processor time, ms |\n| --- | --- | ---: | ---: | ---: | ---: |\n")
	cell := func(c suite.Case, metrics ...string) string {
		for _, metric := range metrics {
			if row, ok := r.Rows.At(c.Name, c.Harness, metric); ok {
				return row.Cell()
			}
		}
		return ""
	}
	for _, c := range r.Cases {
		fmt.Fprintf(&w, "| %s | %s | %s | %s | %s | %s |\n", c.Name, c.Harness, cell(c, us), cell(c, ms), cell(c, megabytes, perSecond), cell(c, cpu))
	}
	fmt.Fprintln(&w)
	for _, f := range r.Rows.Failures(r.Runs) {
		fmt.Fprintf(&w, "- %s\n", f)
	}
	for _, k := range kinds {
		if x := ratio(r.Rows, k, ours, cost(k)); x != "–" {
			fmt.Fprintf(&w, "- %s: %s takes %s times as long as %s.\n", k.name, ours, x, user)
		}
	}
	return w.String()
}

// cost returns the metric of a case that is less if the network is better.
func cost(k kind) string {
	if k.metrics[0] == us {
		return us
	}
	return ms
}

// ratio returns a network's value of a metric, divided by that of QEMU's user network.
func ratio(rows suite.Rows, k kind, network, metric string) string {
	x, ok := rows.Value(k.name, network, metric)
	y, there := rows.Value(k.name, user, metric)
	if !ok || !there || y == 0 {
		return "–"
	}
	return fmt.Sprintf("%.2f", x/y)
}

// barChart has a panel for each case and a bar for each network.
func barChart(rows suite.Rows, run publish.Run) chart.Chart {
	c := chart.Chart{
		Title:    "A guest's network: less is better",
		Subtitle: fmt.Sprintf("%s; %s; medians of %d runs; %s", target, run.Machine, run.Runs, run.Date),
		Columns:  2, LabelWidth: 82,
	}
	for _, k := range kinds {
		panel := chart.Panel{Title: k.heading()}
		for _, network := range allNetworks {
			x, _ := rows.At(k.name, network, cost(k))
			if x.Median == nil && network == passt {
				continue // the host had none
			}
			panel.Bars = append(panel.Bars, chart.Bar{Label: labels[network], Median: x.Median, Min: x.Min, Max: x.Max, Ours: network == ours})
		}
		c.Panels = append(c.Panels, panel)
	}
	return c
}

// labels are the names of the networks in tables and charts.
var labels = map[string]string{ours: "lan", user: "slirp", filtered: "slirp, filtered", passt: "passt"}
