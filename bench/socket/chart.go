package main

import (
	"cmp"
	"fmt"
	"slices"

	"guesthouse.example/bench/internal/chart"
)

// grid is the number of panels beside each other, in every chart.
const grid = 4

// chart returns a chart of the CPU time for an echo, with a panel for each case and a bar for each
// server. Its last row shows memory.
func (r *report) chart() chart.Chart {
	c := r.cpuChart(r.cases)
	c.Title = "CPU time for each echo, in µs (less is better); a panel is protocol/clients/bytes"
	c.Subtitle = fmt.Sprintf("%s, %s; medians of %d runs, lines from least to greatest", machine(), r.begin.UTC().Format("2006-01-02"), r.runs)
	for i, m := range []struct{ name, title, metric string }{
		{memoryCase.String(), "bytes an idle UDP service", perService},
		{connectionCase.String(), "bytes an idle TCP connection", perConnection},
	} {
		panel := r.panel(m.name, m.title, m.metric)
		panel.NewRow = i == 0
		c.Panels = append(c.Panels, panel)
	}
	return c
}

// cpuChart returns a chart with the panels of some cases. A row of the grid holds one protocol and
// size.
func (r *report) cpuChart(cases []benchCase) chart.Chart {
	cases = slices.Clone(cases)
	slices.SortStableFunc(cases, func(a, b benchCase) int {
		return cmp.Or(-cmp.Compare(a.protocol(), b.protocol()), cmp.Compare(a.bytes, b.bytes),
			cmp.Compare(a.window(), b.window()), cmp.Compare(a.clients, b.clients))
	})
	c := chart.Chart{Columns: grid, LabelWidth: 84}
	for i, k := range cases {
		panel := r.panel(k.String(), k.String(), cpuPerEcho)
		panel.Decimals = 1
		panel.NewRow = i > 0 && (k.protocol() != cases[i-1].protocol() || k.bytes != cases[i-1].bytes)
		c.Panels = append(c.Panels, panel)
	}
	return c
}

func (r *report) panel(name, title, metric string) chart.Panel {
	panel := chart.Panel{Title: title}
	for _, s := range r.servers {
		if row, ok := r.byKey[key{name, s.name, metric}]; ok {
			panel.Bars = append(panel.Bars, chart.Bar{Label: s.name, Median: row.Median, Min: row.Min, Max: row.Max, Ours: s.name == ours})
		}
	}
	return panel
}
