package main

import (
	"encoding/json"
	"fmt"
	"html"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"guesthouse.example/bench/internal/results"
)

// A report is what is written about a run.
type report struct {
	cases []benchCase
	rows  []row
	runs  int
	begin time.Time
}

// write writes boot.json, boot.md and boot.svg.
func (r *report) write(dir string) error {
	text, err := json.MarshalIndent(r.rows, "", "  ")
	if err != nil {
		return fmt.Errorf("write results: %w", err)
	}
	var md, svg strings.Builder
	r.markdown(&md)
	r.chart(&svg)
	for name, text := range map[string]string{
		"boot.json": string(text) + "\n", "boot.md": md.String(), "boot.svg": svg.String(),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o666); err != nil {
			return fmt.Errorf("write results: %w", err)
		}
	}
	return nil
}

func (r *report) at(name, harness, metric string) (row, bool) {
	i := slices.IndexFunc(r.rows, func(x row) bool { return x.Case == name && x.Harness == harness && x.Metric == metric })
	if i < 0 {
		return row{}, false
	}
	return r.rows[i], true
}

func (r *report) markdown(w io.Writer) {
	fmt.Fprintf(w, "# From the start of QEMU to the first echo\n\n%s, %s UTC.\n\n", results.Machine(), r.begin.UTC().Format("2006-01-02 15:04"))
	fmt.Fprintf(w, "%d interleaved runs; medians, with the least and the greatest in brackets. "+
		"All boot the same kernel and initramfs with the machine's emulation (TCG).\n\n", r.runs)
	fmt.Fprintln(w, "| case | harness | ms | MiB a machine |\n| --- | --- | ---: | ---: |")
	var failures []string
	for _, c := range r.cases {
		time, _ := r.at(c.name, c.harness, ms)
		memory := ""
		if m, ok := r.at(c.name, c.harness, pssMiB); ok && m.Median != nil {
			memory = cell(m)
		}
		fmt.Fprintf(w, "| %s | %s | %s | %s |\n", c.name, c.harness, cell(time), memory)
		if time.Failed != "" {
			failures = append(failures, fmt.Sprintf("%s of %s succeeded in %d of %d runs; its first failure: %s",
				c.name, c.harness, time.Runs, r.runs, strings.Join(strings.Fields(time.Failed), " ")))
		}
	}
	fmt.Fprintln(w)
	for _, f := range failures {
		fmt.Fprintf(w, "- %s\n", f)
	}
	for _, tg := range targets {
		ours, _ := r.at("restore-udp/"+tg, ours, ms)
		theirs, _ := r.at("cold-udp/"+tg, peer, ms)
		if ours.Median != nil && theirs.Median != nil && *ours.Median > 0 {
			fmt.Fprintf(w, "- %s: restored, the first echo is %.1f times as fast as with %s.\n", tg, *theirs.Median / *ours.Median, peer)
		}
	}
}

func cell(r row) string {
	if r.Median == nil {
		return "**failed**"
	}
	return fmt.Sprintf("%.0f (%.0f–%.0f)", *r.Median, *r.Min, *r.Max)
}

// The chart has a bar for each case and harness: milliseconds, with a line from
// the least to the greatest run.
const (
	chartWidth  = 860
	labelWidth  = 230
	numberWidth = 70
	barHeight   = 15
	barStep     = 20
	headHeight  = 60
)

func (r *report) chart(w io.Writer) {
	greatest := 1.0
	for _, x := range r.rows {
		if x.Metric == ms && x.Max != nil {
			greatest = max(greatest, *x.Max)
		}
	}
	height := headHeight + len(r.cases)*barStep + 10
	fmt.Fprintf(w, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`+"\n",
		chartWidth, height, chartWidth, height)
	fmt.Fprintf(w, `<rect width="%d" height="%d" fill="white"/>`+"\n", chartWidth, height)
	text(w, 20, 24, "start", 17, "#222", "Milliseconds from the start of QEMU to the first echo, less is better")
	text(w, 20, 44, "start", 12, "#555", fmt.Sprintf("%s, %s; medians of %d runs, lines from least to greatest",
		results.Machine(), r.begin.UTC().Format("2006-01-02"), r.runs))
	y := headHeight
	for _, c := range r.cases {
		x, _ := r.at(c.name, c.harness, ms)
		middle := y + barHeight - 3
		text(w, labelWidth-6, middle, "end", 12, "#222", c.name+" "+c.harness)
		if x.Median == nil {
			text(w, labelWidth, middle, "start", 12, "#b3261e", "failed")
			y += barStep
			continue
		}
		colour := "#a9b4bf"
		if c.harness == ours {
			colour = "#1b6ca8"
		}
		scale := func(v float64) float64 { return v / greatest * (chartWidth - labelWidth - numberWidth) }
		fmt.Fprintf(w, `<rect x="%d" y="%d" width="%.1f" height="%d" fill="%s"/>`+"\n", labelWidth, y, max(scale(*x.Median), 1), barHeight, colour)
		fmt.Fprintf(w, `<line x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f" stroke="#222"/>`+"\n",
			labelWidth+scale(*x.Min), labelWidth+scale(*x.Max), float64(y)+barHeight/2.0, float64(y)+barHeight/2.0)
		text(w, int(labelWidth+scale(*x.Max))+5, middle, "start", 11, "#222", fmt.Sprintf("%.0f", *x.Median))
		y += barStep
	}
	fmt.Fprintln(w, "</svg>")
}

func text(w io.Writer, x, y int, anchor string, size int, colour, s string) {
	fmt.Fprintf(w, `<text x="%d" y="%d" text-anchor="%s" font-size="%d" fill="%s">%s</text>`+"\n",
		x, y, anchor, size, colour, html.EscapeString(s))
}
