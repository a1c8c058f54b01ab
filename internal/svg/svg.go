// Package svg writes the pictures of the project's pages: boxes, bars, lines and text, each picture
// in a light and a dark theme. It is not a general drawing library: it has only the elements that
// those pictures use.
package svg

import (
	"bytes"
	"fmt"
	"html"
)

// A Theme is a set of colours. A page chooses between the two with a <picture> element, because
// an SVG file in an <img> element cannot see which theme its page has.
type Theme struct {
	Name       string // the end of the file's name
	Background string
	Surface    string // of boxes
	Ink        string // of text
	Muted      string // secondary text
	Frame      string // of boxes, and arrows
	Accent     string // of the things that the picture is about
	AccentSoft string // of the surfaces of such boxes
	Plain      string // of the bars of others
	Failed     string
}

// The themes. Their text has a contrast of at least 4.5 to 1 on their background.
var (
	Light = Theme{Name: "light", Background: "#ffffff", Surface: "#f6f8fa", Ink: "#1f2328", Muted: "#59636e", Frame: "#8c959f",
		Accent: "#0a5fb4", AccentSoft: "#e3f0fc", Plain: "#afb8c1", Failed: "#b3261e"}
	Dark = Theme{Name: "dark", Background: "#0d1117", Surface: "#161b22", Ink: "#e6edf3", Muted: "#9aa4af", Frame: "#6e7681",
		Accent: "#58a6ff", AccentSoft: "#12263f", Plain: "#57606a", Failed: "#ff7b72"}
	Themes = []Theme{Light, Dark}
)

const (
	sans = "-apple-system,BlinkMacSystemFont,'Segoe UI',Helvetica,Arial,sans-serif"
	mono = "ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace"
)

// A Picture is an SVG file that is being written. Lengths are in pixels, from the upper left corner.
type Picture struct {
	Theme
	text bytes.Buffer
}

// New begins a picture on the theme's background. Screen readers read the title.
func New(theme Theme, width, height float64, title string) *Picture {
	p := &Picture{Theme: theme}
	fmt.Fprintf(&p.text, `<svg xmlns="http://www.w3.org/2000/svg" width="%g" height="%g" viewBox="0 0 %g %g" role="img" font-family="%s">`+"\n",
		width, height, width, height, sans)
	fmt.Fprintf(&p.text, "<title>%s</title>\n", html.EscapeString(title))
	p.Rect(0, 0, width, height, Box{Fill: theme.Background})
	return p
}

// A Box is the style of a rectangle. The zero value is invisible.
type Box struct {
	Fill, Stroke string
	Radius       float64
	Dashed       bool
}

// Rect draws a rectangle.
func (p *Picture) Rect(x, y, width, height float64, b Box) {
	fill := b.Fill
	if fill == "" {
		fill = "none"
	}
	fmt.Fprintf(&p.text, `<rect x="%.6g" y="%.6g" width="%.6g" height="%.6g" fill="%s"`, x, y, width, height, fill)
	if b.Radius > 0 {
		fmt.Fprintf(&p.text, ` rx="%g"`, b.Radius)
	}
	if b.Stroke != "" {
		fmt.Fprintf(&p.text, ` stroke="%s"`, b.Stroke)
	}
	if b.Dashed {
		p.text.WriteString(` stroke-dasharray="5 4"`)
	}
	p.text.WriteString("/>\n")
}

// Line draws a line.
func (p *Picture) Line(x1, y1, x2, y2 float64, colour string) {
	fmt.Fprintf(&p.text, `<line x1="%.6g" y1="%.6g" x2="%.6g" y2="%.6g" stroke="%s"/>`+"\n", x1, y1, x2, y2, colour)
}

// headSize is the length of an arrow's head.
const headSize = 8

// Arrow draws a horizontal or vertical line with a head at its second end, and with one at its
// first end too if both is set.
func (p *Picture) Arrow(x1, y1, x2, y2 float64, both bool, colour string) {
	dx, dy := direction(x1, x2), direction(y1, y2)
	p.Line(x1, y1, x2, y2, colour)
	p.head(x2, y2, dx, dy, colour)
	if both {
		p.head(x1, y1, -dx, -dy, colour)
	}
}

// head draws a triangle that points in the direction (dx, dy).
func (p *Picture) head(x, y, dx, dy float64, colour string) {
	bx, by := x-dx*headSize, y-dy*headSize
	fmt.Fprintf(&p.text, `<path d="M%.6g %.6gL%.6g %.6gL%.6g %.6gZ" fill="%s"/>`+"\n",
		x, y, bx-dy*headSize/2, by+dx*headSize/2, bx+dy*headSize/2, by-dx*headSize/2, colour)
}

func direction(from, to float64) float64 {
	switch {
	case from < to:
		return 1
	case from > to:
		return -1
	}
	return 0
}

// A Font is the style of a text.
type Font struct {
	Size   float64 // in pixels
	Colour string
	Anchor string // "start" (also empty), "middle" or "end"
	Bold   bool
	Mono   bool // every character is equally wide; spaces are kept
}

// Text writes a line of text whose baseline is at y.
func (p *Picture) Text(x, y float64, f Font, text string) {
	fmt.Fprintf(&p.text, `<text x="%.6g" y="%.6g" font-size="%g" fill="%s"`, x, y, f.Size, f.Colour)
	if f.Anchor != "" {
		fmt.Fprintf(&p.text, ` text-anchor="%s"`, f.Anchor)
	}
	if f.Bold {
		p.text.WriteString(` font-weight="600"`)
	}
	if f.Mono {
		fmt.Fprintf(&p.text, ` font-family="%s" xml:space="preserve"`, mono)
	}
	fmt.Fprintf(&p.text, ">%s</text>\n", html.EscapeString(text))
}

// Bytes ends the picture and returns the file.
func (p *Picture) Bytes() []byte {
	p.text.WriteString("</svg>\n")
	return p.text.Bytes()
}
