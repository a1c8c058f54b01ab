package main

import (
	"fmt"
	"strings"

	"guesthouse.example/bench/internal/chart"
	"guesthouse.example/bench/internal/publish"
	"guesthouse.example/bench/internal/suite"
)

// A way is a way to get a machine that answers.
type way struct{ label, kase, harness string }

// ways are the ways that the pages compare, the fastest first.
var ways = []way{
	{"prefetched", "prefetched-udp/", ours},
	{"restored", "restore-udp/", ours},
	{"cold", "cold-udp/", ours},
	{"vmtest", "cold-udp/", peer},
}

// bars are the cases of the chart.
func bars() (all []suite.Case) {
	for _, tg := range targets {
		for _, w := range ways {
			all = append(all, suite.Case{Name: w.kase + tg, Harness: w.harness, Metrics: []string{ms}})
		}
	}
	return all
}

// firstEcho is the README's chart: a panel for each target, a bar for each way.
func firstEcho(rows suite.Rows, run publish.Run) chart.Chart {
	c := chart.Chart{
		Title:    "Milliseconds from asking for a machine to its first UDP echo",
		Subtitle: fmt.Sprintf("%s; medians of %d runs; %s", run.Machine, run.Runs, run.Date),
		Columns:  2, LabelWidth: 82,
	}
	for _, tg := range targets {
		panel := chart.Panel{Title: tg}
		for _, w := range ways {
			x, _ := rows.At(w.kase+tg, w.harness, ms)
			panel.Bars = append(panel.Bars, bar(w.label, x, w.harness == ours))
		}
		c.Panels = append(c.Panels, panel)
	}
	return c
}

// section is the part of README.md that shows the results.
func section(rows suite.Rows, results publish.Results) string {
	var b strings.Builder
	b.WriteString(results.Head() + "In milliseconds:\n\n| target | prefetched, UDP | restored, UDP | restored, TCP | cold, UDP | cold, TCP | vmtest, UDP | vmtest / restored |\n" +
		"| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n")
	for _, tg := range targets {
		fmt.Fprintf(&b, "| %s |", tg)
		for _, w := range []way{{kase: "prefetched-udp/", harness: ours}, {kase: "restore-udp/", harness: ours}, {kase: "restore-tcp/", harness: ours},
			{kase: "cold-udp/", harness: ours}, {kase: "cold-tcp/", harness: ours}, {kase: "cold-udp/", harness: peer}} {
			fmt.Fprintf(&b, " %s |", rows.Median(w.kase+tg, w.harness, ms))
		}
		restored, _ := rows.At("restore-udp/"+tg, ours, ms)
		theirs, _ := rows.At("cold-udp/"+tg, peer, ms)
		if restored.Median != nil && theirs.Median != nil {
			fmt.Fprintf(&b, " %.0f", *theirs.Median / *restored.Median)
		}
		b.WriteString(" |\n")
	}
	fmt.Fprintf(&b, "\nMachines of %s that are restored at once from one template:\n\n| machines | all have answered after, ms | MiB a machine |\n| ---: | ---: | ---: |\n", manyTarget)
	for _, n := range counts {
		name := fmt.Sprintf("many/%d", n)
		fmt.Fprintf(&b, "| %d | %s | %s |\n", n, rows.Median(name, ours, ms), rows.Median(name, ours, pssMiB))
	}
	b.WriteString("\n[results.md](results.md) is the whole report.\n\n")
	return b.String()
}
