package main

import (
	"cmp"
	"fmt"
	"html"
	"io"
	"slices"
)

// The chart is a grid of panels, one for each case, and in each a bar for each
// server: CPU time for an echo, with a line from the least to the greatest run.
const (
	panelWidth  = 330
	panelHeight = 208
	labelWidth  = 82
	numberWidth = 58
	barHeight   = 15
	barStep     = 20
	headHeight  = 64
	gridColumns = 4
)

const (
	ourColour    = "#1b6ca8"
	theirColour  = "#a9b4bf"
	failedColour = "#b3261e"
)

func (r *report) chart(w io.Writer) {
	type panel struct{ name, title, metric string }
	var panels []panel
	// A row of the grid holds one protocol and size.
	cases := slices.Clone(r.cases)
	slices.SortStableFunc(cases, func(a, b benchCase) int {
		return cmp.Or(cmp.Compare(b.network, a.network), cmp.Compare(a.bytes, b.bytes), cmp.Compare(a.clients, b.clients))
	})
	for _, c := range cases {
		panels = append(panels, panel{c.String(), c.String() + ": CPU µs an echo", cpuPerEcho})
	}
	panels = append(panels,
		panel{memoryCase.String(), "bytes an idle UDP service", perService},
		panel{connectionCase.String(), "bytes an idle TCP connection", perConnection})

	var places [][2]int // column, row
	column, line, group := 0, 0, ""
	for i, p := range panels {
		next := p.metric
		if i < len(cases) {
			next = fmt.Sprint(cases[i].network, cases[i].bytes)
		}
		if p.metric != cpuPerEcho {
			next = "memory"
		}
		if i > 0 && (next != group || column == gridColumns) {
			column, line = 0, line+1
		}
		group = next
		places = append(places, [2]int{column, line})
		column++
	}

	width, height := gridColumns*panelWidth+20, headHeight+(line+1)*panelHeight
	fmt.Fprintf(w, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`+"\n",
		width, height, width, height)
	fmt.Fprintf(w, `<rect width="%d" height="%d" fill="white"/>`+"\n", width, height)
	text(w, 20, 26, "start", 18, "#222", "Echo servers compared: protocol/clients/bytes, less is better")
	text(w, 20, 46, "start", 12, "#555", fmt.Sprintf("%s, %s; medians of %d runs, lines from least to greatest",
		machine(), r.begin.UTC().Format("2006-01-02"), r.runs))
	for i, p := range panels {
		r.panel(w, 20+places[i][0]*panelWidth, headHeight+places[i][1]*panelHeight, p.name, p.title, p.metric)
	}
	fmt.Fprintln(w, "</svg>")
}

func (r *report) panel(w io.Writer, x, y int, name, title, metric string) {
	text(w, x, y+16, "start", 13, "#222", title)
	greatest := 0.0
	for _, s := range r.servers {
		if row := r.byKey[key{name, s.name, metric}]; row.Max != nil {
			greatest = max(greatest, *row.Max)
		}
	}
	y += 26
	for _, s := range r.servers {
		row, ok := r.byKey[key{name, s.name, metric}]
		if !ok {
			continue
		}
		middle := y + barHeight - 4
		text(w, x+labelWidth-6, middle, "end", 12, "#222", s.name)
		if row.Median == nil {
			text(w, x+labelWidth, middle, "start", 12, failedColour, "failed")
			y += barStep
			continue
		}
		colour := theirColour
		if s.name == ours {
			colour = ourColour
		}
		scale := func(v float64) float64 {
			return max(v, 0) / max(greatest, 1e-9) * (panelWidth - labelWidth - numberWidth)
		}
		left := float64(x + labelWidth)
		fmt.Fprintf(w, `<rect x="%.1f" y="%d" width="%.1f" height="%d" fill="%s"/>`+"\n",
			left, y, max(scale(*row.Median), 1), barHeight, colour)
		fmt.Fprintf(w, `<line x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f" stroke="#222"/>`+"\n",
			left+scale(*row.Min), left+scale(*row.Max), float64(y)+barHeight/2.0, float64(y)+barHeight/2.0)
		format := "%.2f"
		if metric != cpuPerEcho {
			format = "%.0f"
		}
		text(w, int(left+scale(*row.Max))+5, middle, "start", 11, "#222", fmt.Sprintf(format, *row.Median))
		y += barStep
	}
}

func text(w io.Writer, x, y int, anchor string, size int, colour, s string) {
	fmt.Fprintf(w, `<text x="%d" y="%d" text-anchor="%s" font-size="%d" fill="%s">%s</text>`+"\n",
		x, y, anchor, size, colour, html.EscapeString(s))
}
