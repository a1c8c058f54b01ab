package main

import (
	"fmt"
	"strings"

	"guesthouse.example/bench/internal/chart"
	"guesthouse.example/bench/internal/results"
	"guesthouse.example/bench/internal/suite"
	"guesthouse.example/internal/svg"
)

// files returns boot.md and boot.svg.
func files(r suite.Report) map[string]string {
	return map[string]string{"md": markdown(r), "svg": string(barChart(r).SVG(svg.Light))}
}

func markdown(r suite.Report) string {
	var w strings.Builder
	w.WriteString(r.Head("From the start of QEMU to the first echo", "All boot the same kernel and initramfs with the machine's emulation (TCG)."))
	w.WriteString("| case | harness | ms | MiB a machine |\n| --- | --- | ---: | ---: |\n")
	for _, c := range r.Cases {
		time, _ := r.Rows.At(c.Name, c.Harness, ms)
		memory := ""
		if m, ok := r.Rows.At(c.Name, c.Harness, pssMiB); ok && m.Median != nil {
			memory = m.Cell()
		}
		fmt.Fprintf(&w, "| %s | %s | %s | %s |\n", c.Name, c.Harness, time.Cell(), memory)
	}
	fmt.Fprintln(&w)
	for _, f := range r.Rows.Failures(r.Runs) {
		fmt.Fprintf(&w, "- %s\n", f)
	}
	for _, tg := range targets {
		ours, _ := r.Rows.At("restore-udp/"+tg, ours, ms)
		theirs, _ := r.Rows.At("cold-udp/"+tg, peer, ms)
		if ours.Median != nil && theirs.Median != nil && *ours.Median > 0 {
			fmt.Fprintf(&w, "- %s: restored, the first echo is %.1f times as fast as with %s.\n", tg, *theirs.Median / *ours.Median, peer)
		}
	}
	return w.String()
}

// barChart has a bar for each case and harness.
func barChart(r suite.Report) chart.Chart {
	panel := chart.Panel{}
	for _, c := range r.Cases {
		x, _ := r.Rows.At(c.Name, c.Harness, ms)
		panel.Bars = append(panel.Bars, bar(c.Name+" "+c.Harness, x, c.Harness == ours))
	}
	return chart.Chart{
		Title: "Milliseconds to the first echo, less is better",
		Subtitle: fmt.Sprintf("%s, %s; medians of %d runs, lines from least to greatest",
			results.Machine(), r.Begin.UTC().Format("2006-01-02"), r.Runs),
		Panels: []chart.Panel{panel}, Columns: 1, LabelWidth: 160,
	}
}

func bar(label string, r suite.Row, ours bool) chart.Bar {
	return chart.Bar{Label: label, Median: r.Median, Min: r.Min, Max: r.Max, Ours: ours}
}
