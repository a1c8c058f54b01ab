package main

import (
	"fmt"
	"path/filepath"
	"strings"

	"guesthouse.example/bench/internal/chart"
	"guesthouse.example/bench/internal/publish"
	"guesthouse.example/bench/internal/suite"
)

// complete returns an error for a run that lacks a bar of the chart.
func complete(rows suite.Rows) error {
	for _, tg := range targets {
		for _, w := range ways {
			if err := rows.Lacks(w.kase+tg, w.harness, ms); err != nil {
				return err
			}
		}
	}
	return nil
}

// pages returns the pages that show the newest results.
func pages(root string) (publish.Pages, error) {
	results, err := publish.Read(filepath.Join(root, "bench", "boot"))
	if err != nil {
		return nil, err
	}
	rows, err := suite.ReadRows(results)
	if err != nil {
		return nil, err
	}
	p := publish.Pages{}
	p.Chart("first-echo", firstEcho(rows, results.Run))
	err = p.Section(root, filepath.Join("bench", "boot", "README.md"), section(rows, results))
	return p, err
}

// A way is a way to get a machine that answers.
type way struct{ label, kase, harness string }

// ways are the ways that the pages compare, the fastest first.
var ways = []way{
	{"prefetched", "prefetched-udp/", ours},
	{"restored", "restore-udp/", ours},
	{"cold", "cold-udp/", ours},
	{"vmtest", "cold-udp/", peer},
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
	_, head, _ := strings.Cut(results.Report, "\n") // without its title
	head, _, _ = strings.Cut(head, "\n|")
	b.WriteString(strings.TrimRight(head, "\n") + "\n\nIn milliseconds:\n\n| target | prefetched, UDP | restored, UDP | restored, TCP | cold, UDP | cold, TCP | vmtest, UDP | vmtest / restored |\n" +
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
