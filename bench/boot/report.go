package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"guesthouse.example/bench/internal/chart"
	"guesthouse.example/bench/internal/results"
	"guesthouse.example/bench/internal/suite"
	"guesthouse.example/internal/svg"
)

// A report describes a run in words, tables and a chart.
type report struct {
	cases []suite.Case
	rows  suite.Rows
	runs  int
	begin time.Time
}

// write writes boot.json, boot.md and boot.svg.
func (r *report) write(dir string) error {
	text, err := json.MarshalIndent(r.rows, "", "  ")
	if err != nil {
		return fmt.Errorf("write results: %w", err)
	}
	var md strings.Builder
	r.markdown(&md)
	for name, text := range map[string]string{
		"boot.json": string(text) + "\n", "boot.md": md.String(), "boot.svg": string(r.chart().SVG(svg.Light)),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o666); err != nil {
			return fmt.Errorf("write results: %w", err)
		}
	}
	return nil
}

func (r *report) markdown(w io.Writer) {
	fmt.Fprintf(w, "# From the start of QEMU to the first echo\n\n%s, %s UTC.\n\n", results.Machine(), r.begin.UTC().Format("2006-01-02 15:04"))
	fmt.Fprintf(w, "%d interleaved runs; medians, with the least and the greatest in brackets. "+
		"All boot the same kernel and initramfs with the machine's emulation (TCG).\n\n", r.runs)
	fmt.Fprintln(w, "| case | harness | ms | MiB a machine |\n| --- | --- | ---: | ---: |")
	for _, c := range r.cases {
		time, _ := r.rows.At(c.Name, c.Harness, ms)
		memory := ""
		if m, ok := r.rows.At(c.Name, c.Harness, pssMiB); ok && m.Median != nil {
			memory = m.Cell()
		}
		fmt.Fprintf(w, "| %s | %s | %s | %s |\n", c.Name, c.Harness, time.Cell(), memory)
	}
	fmt.Fprintln(w)
	for _, f := range r.rows.Failures(r.runs) {
		fmt.Fprintf(w, "- %s\n", f)
	}
	for _, tg := range targets {
		ours, _ := r.rows.At("restore-udp/"+tg, ours, ms)
		theirs, _ := r.rows.At("cold-udp/"+tg, peer, ms)
		if ours.Median != nil && theirs.Median != nil && *ours.Median > 0 {
			fmt.Fprintf(w, "- %s: restored, the first echo is %.1f times as fast as with %s.\n", tg, *theirs.Median / *ours.Median, peer)
		}
	}
}

// chart has a bar for each case and harness.
func (r *report) chart() chart.Chart {
	panel := chart.Panel{}
	for _, c := range r.cases {
		x, _ := r.rows.At(c.Name, c.Harness, ms)
		panel.Bars = append(panel.Bars, bar(c.Name+" "+c.Harness, x, c.Harness == ours))
	}
	return chart.Chart{
		Title: "Milliseconds to the first echo, less is better",
		Subtitle: fmt.Sprintf("%s, %s; medians of %d runs, lines from least to greatest",
			results.Machine(), r.begin.UTC().Format("2006-01-02"), r.runs),
		Panels: []chart.Panel{panel}, Columns: 1, LabelWidth: 160,
	}
}

func bar(label string, r suite.Row, ours bool) chart.Bar {
	return chart.Bar{Label: label, Median: r.Median, Min: r.Min, Max: r.Max, Ours: ours}
}
