package shell

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// A row is one row of a terminal that is wide enough.
type row struct {
	cells []string
	at    int
}

func (r *row) show(text string) {
	for _, c := range text {
		switch c {
		case '\b':
			r.at--
		case '\t':
			r.at += 8 - r.at%8
		default:
			for len(r.cells) <= r.at {
				r.cells = append(r.cells, " ")
			}
			r.cells[r.at] = string(c)
			r.at++
		}
	}
}

// The terminal shows the line and its cursor after any keys.
func TestTheTerminalShowsTheLineAndItsCursor(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var e editor
		var line []string // the model of the line
		var at int
		screen := &row{}
		screen.show(prompt)
		e.history = []string{"uptime", "sh echo 20°C"}
		for range rapid.IntRange(1, 40).Draw(t, "keys") {
			switch key := rapid.SampledFrom([]string{"a", "ü", " ", "\t", left, right, home, end, del, "\x7f", ctrlW, ctrlU, up, down}).Draw(t, "key"); key {
			case left:
				at = max(at-1, 0)
				e.keys(key)
			case right:
				at = min(at+1, len(line))
				e.keys(key)
			case home:
				at = 0
				e.keys(key)
			case end:
				at = len(line)
				e.keys(key)
			case del:
				if at < len(line) {
					line = slices.Delete(slices.Clone(line), at, at+1)
				}
				e.keys(key)
			case "\x7f":
				if at > 0 {
					at--
					line = slices.Delete(slices.Clone(line), at, at+1)
				}
				e.keys(key)
			case ctrlU:
				line, at = nil, 0
				e.keys(key)
			case ctrlW, up, down: // the model takes the editor's result
				e.keys(key)
				line, at = slices.Clone(e.cells), e.at
			default:
				line = slices.Insert(slices.Clone(line), at, key)
				at++
				e.keys(key)
			}
			require.Equal(t, strings.Join(line, ""), strings.Join(e.cells, ""))
			require.Equal(t, at, e.at)
			screen.show(string(e.shown))
			e.shown = nil
			want := &row{}
			want.show(prompt + e.redraw())
			require.Equal(t, strings.TrimRight(strings.Join(want.cells, ""), " "), strings.TrimRight(strings.Join(screen.cells, ""), " "))
			require.Equal(t, want.at, screen.at)
		}
	})
}

func (e *editor) keys(text string) {
	for _, b := range []byte(text) {
		e.key(b)
	}
}

func TestTheLengthOfTheHistoryIsLimited(t *testing.T) {
	var e editor
	for range 3 * maxHistory {
		for _, line := range []string{"one", "two", "two", "", "  "} {
			e.remember(line)
		}
	}
	require.Len(t, e.history, maxHistory)
	require.Equal(t, []string{"one", "two"}, e.history[maxHistory-2:], "repeated and empty lines are left out")
}
