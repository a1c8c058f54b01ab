package main

import (
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	"guesthouse.example/internal/svg"
)

// escapes matches a terminal's escape sequences. The picture has colours of its own.
var escapes = regexp.MustCompile("\x1b(\\[[0-?]*[ -/]*[@-~]|\\][^\x07\x1b]*(\x07|\x1b\\\\)|[ -/]*[0-~])")

// screen returns the lines that a recording has left on the terminal.
func screen(recording string) (lines []string) {
	text := escapes.ReplaceAllString(recording, "")
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n")
		if i := strings.LastIndexByte(line, '\r'); i >= 0 {
			line = line[i+1:] // it was printed over what stood there
		}
		lines = append(lines, erase(line))
	}
	for len(lines) > 0 && lines[len(lines)-1] == "" {
		lines = lines[:len(lines)-1]
	}
	return lines
}

// erase carries out backspaces, and drops the other control characters.
func erase(line string) string {
	var kept []rune
	for _, r := range line {
		switch {
		case r == '\b' && len(kept) > 0:
			kept = kept[:len(kept)-1]
		case !unicode.IsControl(r):
			kept = append(kept, r)
		}
	}
	return string(kept)
}

const (
	columns    = 104 // longer lines are wrapped, as a terminal does
	charWidth  = 7.83
	lineHeight = 19
	barHeight  = 34
	margin     = 16
)

// prompts begin the lines on which somebody typed.
var prompts = []string{"uart:~$ ", "$ "}

// drawTerminal draws the text that a recording leaves on a terminal.
func drawTerminal(theme svg.Theme, title, recording string) []byte {
	type row struct {
		text string
		ours bool // guesthouse's own words
	}
	var rows []row
	for _, line := range screen(recording) {
		for _, part := range wrap(line, columns) {
			rows = append(rows, row{part, strings.HasPrefix(line, "guesthouse: ")})
		}
	}
	width := columns*charWidth + 2*margin
	height := float64(barHeight + lineHeight*len(rows) + margin)
	p := svg.New(theme, width, height, "A terminal: "+title)
	p.Rect(0.5, 0.5, width-1, height-1, svg.Box{Fill: theme.Surface, Stroke: theme.Frame, Radius: 8})
	p.Text(width/2, 22, svg.Font{Size: 13, Colour: theme.Muted, Anchor: "middle"}, title)
	p.Line(1, barHeight-6, width-1, barHeight-6, theme.Frame)
	for i, r := range rows {
		line := r.text
		y := float64(barHeight + lineHeight*(i+1) - 5)
		x, font := float64(margin), svg.Font{Size: 13, Colour: theme.Ink, Mono: true}
		for _, prompt := range prompts {
			if typed, ok := strings.CutPrefix(line, prompt); ok {
				p.Text(x, y, svg.Font{Size: 13, Colour: theme.Accent, Mono: true}, prompt)
				x += charWidth * float64(utf8.RuneCountInString(prompt))
				line, font.Bold = typed, true
				break
			}
		}
		if r.ours {
			font.Colour = theme.Accent
		}
		p.Text(x, y, font, line)
	}
	return p.Bytes()
}

// wrap divides a line as a terminal of so many columns does.
func wrap(line string, columns int) (lines []string) {
	runes := []rune(line)
	for len(runes) > columns {
		lines = append(lines, string(runes[:columns]))
		runes = runes[columns:]
	}
	return append(lines, string(runes))
}
