package main

import (
	"fmt"
	"strings"

	"guesthouse.example/internal/svg"
)

// A diagram is a parsed source file. The file explains its format.
type diagram struct {
	width, height float64
	areas         []area
	boxes         []box
	links         []link
}

type area struct {
	x, y, width, height float64
	title, subtitle     string
}

type box struct {
	name                string
	mine                bool // users write it
	x, y, width, height float64
	title               string
	text                []string
}

type link struct {
	from, to box
	both     bool
	label    string
}

// parseDiagram reads a source file.
func parseDiagram(source string) (d diagram, err error) {
	for i, line := range strings.Split(source, "\n") {
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		if err := d.parseLine(line); err != nil {
			return d, fmt.Errorf("line %d: %w: %q", i+1, err, line)
		}
	}
	if d.width == 0 {
		return d, fmt.Errorf("it has no line with its size")
	}
	return d, nil
}

func (d *diagram) parseLine(line string) error {
	parts := strings.Split(line, "|")
	for i := range parts {
		parts[i] = strings.TrimSpace(parts[i])
	}
	words, text := parts[0], append(parts[1:], "")
	var a area
	b := box{title: text[0], text: parts[min(2, len(parts)):]}
	switch kind, rest, _ := strings.Cut(words, " "); kind {
	case "size":
		return scan(rest, &d.width, &d.height)
	case "area":
		a.title = text[0]
		if len(parts) > 2 {
			a.subtitle = parts[2]
		}
		if err := scan(rest, &a.x, &a.y, &a.width, &a.height); err != nil {
			return err
		}
		d.areas = append(d.areas, a)
	case "box", "box*":
		b.mine = kind == "box*"
		if err := scan(rest, &b.name, &b.x, &b.y, &b.width, &b.height); err != nil {
			return err
		}
		d.boxes = append(d.boxes, b)
	case "link":
		var from, arrow, to string
		if err := scan(rest, &from, &arrow, &to); err != nil {
			return err
		}
		return d.addLink(from, arrow, to, text[0])
	default:
		return fmt.Errorf("unknown kind of line")
	}
	return nil
}

func scan(words string, values ...any) error {
	if len(strings.Fields(words)) != len(values) {
		return fmt.Errorf("want %d words behind the kind", len(values))
	}
	_, err := fmt.Sscan(words, values...)
	return err
}

func (d *diagram) addLink(from, arrow, to, label string) error {
	l := link{both: arrow == "<->", label: label}
	if !l.both && arrow != "-->" {
		return fmt.Errorf("unknown arrow %q", arrow)
	}
	found := 0
	for _, b := range d.boxes {
		if b.name == from {
			l.from = b
			found++
		}
		if b.name == to {
			l.to = b
			found++
		}
	}
	if found != 2 {
		return fmt.Errorf("a link joins two boxes that stand above it")
	}
	d.links = append(d.links, l)
	return nil
}

// draw draws the areas, then the links and on top the boxes.
func (d diagram) draw(theme svg.Theme) []byte {
	p := svg.New(theme, d.width, d.height, d.title())
	for _, a := range d.areas {
		p.Rect(a.x, a.y, a.width, a.height, svg.Box{Stroke: theme.Frame, Radius: 10, Dashed: true})
		p.Text(a.x+14, a.y+25, svg.Font{Size: 16, Colour: theme.Ink, Bold: true}, a.title)
		p.Text(a.x+14, a.y+45, svg.Font{Size: 13, Colour: theme.Muted}, a.subtitle)
	}
	for _, l := range d.links {
		l.draw(p)
	}
	for _, b := range d.boxes {
		b.draw(p)
	}
	return p.Bytes()
}

// title says in words what the picture shows.
func (d diagram) title() string {
	var names []string
	for _, a := range d.areas {
		names = append(names, a.title)
	}
	return "How guesthouse works: " + strings.Join(names, ", ")
}

func (b box) draw(p *svg.Picture) {
	style, title := svg.Box{Fill: p.Surface, Stroke: p.Frame, Radius: 6}, p.Ink
	if b.mine {
		style.Fill, style.Stroke, title = p.AccentSoft, p.Accent, p.Accent
	}
	p.Rect(b.x, b.y, b.width, b.height, style)
	const lineHeight = 19
	y := b.y + b.height/2 - float64(len(b.text))*lineHeight/2 + 5
	p.Text(b.x+b.width/2, y, svg.Font{Size: 14, Colour: title, Anchor: "middle", Bold: true}, b.title)
	for _, line := range b.text {
		y += lineHeight
		p.Text(b.x+b.width/2, y, svg.Font{Size: 12.5, Colour: p.Muted, Anchor: "middle"}, line)
	}
}

// draw joins two boxes that stand beside or above each other.
func (l link) draw(p *svg.Picture) {
	const gap = 2
	if l.from.x+l.from.width <= l.to.x {
		y := middle(l.from.y, l.from.height, l.to.y, l.to.height)
		x1, x2 := l.from.x+l.from.width+gap, l.to.x-gap
		p.Arrow(x1, y, x2, y, l.both, p.Frame)
		p.Text((x1+x2)/2, y-7, svg.Font{Size: 12, Colour: p.Muted, Anchor: "middle"}, l.label)
		return
	}
	x := middle(l.from.x, l.from.width, l.to.x, l.to.width)
	p.Arrow(x, l.from.y+l.from.height+gap, x, l.to.y-gap, l.both, p.Frame)
}

// middle returns the middle of the range that two boxes share in one direction.
func middle(a, lengthA, b, lengthB float64) float64 {
	return (max(a, b) + min(a+lengthA, b+lengthB)) / 2
}
