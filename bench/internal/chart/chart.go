// Package chart draws the benchmarks' results: panels of horizontal bars, each with its number and a
// line from the least to the greatest run.
package chart

import (
	"fmt"

	"guesthouse.example/internal/svg"
)

// A Chart is a grid of panels. Less is better in all of them.
type Chart struct {
	Title, Subtitle string
	Panels          []Panel
	Columns         int     // of the grid
	LabelWidth      float64 // room for the bars' labels, in pixels
}

// A Panel has a scale of its own, which begins at 0.
type Panel struct {
	Title    string
	Decimals int
	Bars     []Bar
	NewRow   bool // it begins a row of the grid
}

// A Bar is one result. It has no numbers if every run failed.
type Bar struct {
	Label            string
	Median, Min, Max *float64
	Ours             bool // it stands out
}

const (
	panelWidth  = 330
	panelGap    = 22
	numberWidth = 62
	barHeight   = 14
	barStep     = 20
	titleHeight = 30 // a panel's
	headHeight  = 58
	margin      = 20
)

// place is where a panel's upper left corner is.
type place struct{ x, y float64 }

// layout returns the panels' places and the chart's size. Rows are as high as their highest panel.
func (c Chart) layout() (places []place, width, height float64) {
	column, top, rowHeight, widest := 0, float64(headHeight), 0.0, 0
	for i, p := range c.Panels {
		if i > 0 && (column == c.Columns || p.NewRow) {
			column, top, rowHeight = 0, top+rowHeight+panelGap, 0
		}
		places = append(places, place{margin + float64(column)*(panelWidth+panelGap), top})
		rowHeight = max(rowHeight, titleHeight+barStep*float64(len(p.Bars)))
		column++
		widest = max(widest, column)
	}
	return places, 2*margin + float64(widest)*(panelWidth+panelGap) - panelGap, top + rowHeight + margin
}

// SVG returns the chart as an SVG file.
func (c Chart) SVG(theme svg.Theme) []byte {
	places, width, height := c.layout()
	p := svg.New(theme, width, height, c.Title)
	p.Text(margin, 26, svg.Font{Size: 17, Colour: theme.Ink, Bold: true}, c.Title)
	p.Text(margin, 46, svg.Font{Size: 12.5, Colour: theme.Muted}, c.Subtitle)
	for i, panel := range c.Panels {
		panel.draw(p, places[i], c.LabelWidth)
	}
	return p.Bytes()
}

func (panel Panel) draw(p *svg.Picture, at place, labelWidth float64) {
	p.Text(at.x, at.y+18, svg.Font{Size: 13.5, Colour: p.Ink, Bold: true}, panel.Title)
	greatest := 0.0
	for _, b := range panel.Bars {
		for _, v := range []*float64{b.Median, b.Max} {
			if v != nil {
				greatest = max(greatest, *v)
			}
		}
	}
	scale := func(v float64) float64 {
		return max(v, 0) / max(greatest, 1e-9) * (panelWidth - labelWidth - numberWidth)
	}
	left, y := at.x+labelWidth, at.y+titleHeight
	for _, b := range panel.Bars {
		base := y + barHeight - 2.5
		label := svg.Font{Size: 12, Colour: p.Ink, Anchor: "end", Bold: b.Ours}
		p.Text(left-7, base, label, b.Label)
		if b.Median == nil {
			p.Text(left, base, svg.Font{Size: 12, Colour: p.Failed}, "failed")
			y += barStep
			continue
		}
		colour := p.Plain
		if b.Ours {
			colour = p.Accent
		}
		p.Rect(left, y, max(scale(*b.Median), 1), barHeight, svg.Box{Fill: colour, Radius: 2})
		end := *b.Median
		if b.Min != nil && b.Max != nil {
			p.Line(left+scale(*b.Min), y+barHeight/2, left+scale(*b.Max), y+barHeight/2, p.Ink)
			end = *b.Max
		}
		p.Text(left+scale(end)+6, base, svg.Font{Size: 12, Colour: p.Ink, Bold: b.Ours}, fmt.Sprintf("%.*f", panel.Decimals, *b.Median))
		y += barStep
	}
}
