package shell

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// An editor edits the line that a person types, and keeps a history of earlier lines. It writes only
// text, spaces, backspaces and one carriage return. It writes no escape sequences and no queries,
// because a test would not answer queries. This has two costs: a person can edit only the last row of
// a line that is wider than the terminal, and the editor counts a character of two columns as one.
type editor struct {
	cells   []string // the line: each cell is a character, or a byte that is not UTF-8
	at      int      // the cursor: an index in cells
	partial []byte   // a character or an escape sequence that is not complete

	history []string
	back    int    // the shown line's place in history, counted from its end; 0 is the draft
	draft   string // the line that was typed before the history was shown

	shown []byte // output to the terminal that is not written yet
}

// An ending says whether and how a key has ended a line.
type ending int

const (
	goesOn      ending = iota
	entered            // by Enter
	interrupted        // by Ctrl-C: the line is dropped
	ended              // by Ctrl-D, in an empty line
)

const (
	maxLine    = 4095 // bytes, as in a line that the terminal edits
	maxHistory = 100  // lines
)

// key handles a byte that was typed.
func (e *editor) key(b byte) ending {
	switch {
	case len(e.partial) > 0 && e.partial[0] == esc:
		if b >= ' ' {
			e.escape(b)
			return goesOn
		}
		e.partial = nil // the key was Esc itself
	case b >= utf8.RuneSelf:
		if e.partial = append(e.partial, b); utf8.FullRune(e.partial) {
			e.character()
		}
		return goesOn
	case len(e.partial) > 0:
		e.character() // the character is not complete
	}
	switch b {
	case esc:
		e.partial = []byte{b}
	case '\r', '\n':
		e.show(spaced(e.cells, e.at) + "\n")
		return entered
	case 0x03, 0x1c: // Ctrl-C, Ctrl-\
		e.show("^" + string(rune(b^0x40)) + "\n")
		return interrupted
	case 0x04: // Ctrl-D
		if len(e.cells) == 0 {
			e.show("\n")
			return ended
		}
	case '\b', 0x7f:
		e.remove(e.at-1, e.at)
	case 0x15: // Ctrl-U
		e.replace(nil, 0)
	case 0x17: // Ctrl-W
		from := e.at
		for from > 0 && e.cells[from-1] == " " {
			from--
		}
		for from > 0 && e.cells[from-1] != " " {
			from--
		}
		e.remove(from, e.at)
	case 0x01: // Ctrl-A
		e.move(0)
	case 0x05: // Ctrl-E
		e.move(len(e.cells))
	case '\t':
		e.insert("\t")
	default:
		if b >= ' ' {
			e.insert(string(rune(b)))
		}
	}
	return goesOn
}

const esc = 0x1b

// escape handles the next byte of an escape sequence.
func (e *editor) escape(b byte) {
	const maxSequence = 16
	e.partial = append(e.partial, b)
	if len(e.partial) == 2 && (b == '[' || b == 'O') {
		return
	}
	if len(e.partial) > 2 && (b < '@' || b > '~') && len(e.partial) < maxSequence {
		return
	}
	sequence := string(e.partial[1:])
	e.partial = nil
	switch sequence {
	case "[A", "OA":
		e.recall(e.back + 1)
	case "[B", "OB":
		e.recall(e.back - 1)
	case "[C", "OC":
		e.move(e.at + 1)
	case "[D", "OD":
		e.move(e.at - 1)
	case "[H", "OH", "[1~", "[7~":
		e.move(0)
	case "[F", "OF", "[4~", "[8~":
		e.move(len(e.cells))
	case "[3~":
		e.remove(e.at, e.at+1)
	}
}

// character inserts the partial character. If it is not complete, each byte becomes a cell.
func (e *editor) character() {
	text := string(e.partial)
	e.partial = nil
	for _, cell := range cellsOf(text) {
		e.insert(cell)
	}
}

func (e *editor) insert(cell string) {
	size := len(cell)
	for _, c := range e.cells {
		size += len(c)
	}
	if size > maxLine {
		return
	}
	if e.at == len(e.cells) { // nearly always
		e.cells = append(e.cells, cell)
		e.at++
		e.show(cell)
		return
	}
	e.replace(slices.Insert(slices.Clone(e.cells), e.at, cell), e.at+1)
}

func (e *editor) remove(from, to int) {
	if from < 0 || to > len(e.cells) {
		return
	}
	e.replace(slices.Delete(slices.Clone(e.cells), from, to), from)
}

func (e *editor) move(to int) { e.replace(e.cells, min(max(to, 0), len(e.cells))) }

// recall shows a line of the history: 1 is the newest, and 0 the draft.
func (e *editor) recall(back int) {
	if back < 0 || back > len(e.history) {
		return
	}
	if e.back == 0 {
		e.draft = strings.Join(e.cells, "")
	}
	e.back = back
	text := e.draft
	if back > 0 {
		text = e.history[len(e.history)-back]
	}
	cells := cellsOf(text)
	e.replace(cells, len(cells))
}

func cellsOf(text string) (cells []string) {
	for len(text) > 0 {
		_, size := utf8.DecodeRuneInString(text)
		cells = append(cells, text[:size])
		text = text[size:]
	}
	return cells
}

// begin takes over a line that the terminal has edited so far. The terminal may have shown up to extra
// columns after the line, which begin erases.
func (e *editor) begin(text string, extra int) {
	e.cells = cellsOf(text)
	e.at = len(e.cells)
	e.show("\r" + prompt + spaced(e.cells, 0) + strings.Repeat(" ", extra) + strings.Repeat("\b", extra))
}

// replace replaces the line and shows the new one from the first difference on.
func (e *editor) replace(cells []string, at int) {
	same := 0
	for same < min(len(e.cells), len(cells), e.at, at) && e.cells[same] == cells[same] {
		same++
	}
	e.goBack(column(e.cells[:e.at]) - column(e.cells[:same]))
	before, end := column(e.cells), column(cells)
	if slices.Equal(e.cells, cells) {
		end = column(cells[:at]) // the rest is shown already
		before = end
		e.show(spaced(cells[:at], same))
	} else {
		e.show(spaced(cells, same))
	}
	e.show(strings.Repeat(" ", max(0, before-end)))
	e.goBack(max(before, end) - column(cells[:at]))
	e.cells, e.at = cells, at
}

func (e *editor) goBack(columns int) { e.show(strings.Repeat("\b", columns)) }

func (e *editor) show(text string) { e.shown = append(e.shown, text...) }

// redraw returns the text that shows the line and its cursor after a new prompt.
func (e *editor) redraw() string {
	return spaced(e.cells, 0) + strings.Repeat("\b", column(e.cells)-column(e.cells[:e.at]))
}

// take returns the line and starts an empty one.
func (e *editor) take() (line string) {
	line = strings.Join(e.cells, "")
	e.cells, e.at, e.partial, e.back, e.draft = nil, 0, nil, 0, ""
	return line
}

// remember adds a line to the history.
func (e *editor) remember(line string) {
	if strings.TrimSpace(line) == "" || len(e.history) > 0 && e.history[len(e.history)-1] == line {
		return
	}
	e.history = append(e.history, line)
	if len(e.history) > maxHistory {
		e.history = e.history[1:]
	}
}

// spaced returns the text that shows the cells from an index on. Tabs become spaces, because a tab
// does not erase the columns that it skips. Control characters look as the terminal shows them.
func spaced(cells []string, from int) string {
	var b strings.Builder
	for i, cell := range cells[from:] {
		switch {
		case cell == "\t":
			cell = strings.Repeat(" ", column(cells[:from+i+1])-column(cells[:from+i]))
		case isControl(cell):
			cell = "^" + string(rune(cell[0]^0x40))
		}
		b.WriteString(cell)
	}
	return b.String()
}

func isControl(cell string) bool { return cell < " " || cell == "\x7f" }

// column returns the column after the prompt and the cells.
func column(cells []string) int {
	at := len(prompt)
	for _, cell := range cells {
		switch r, _ := utf8.DecodeRuneInString(cell); {
		case cell == "\t":
			at += 8 - at%8
		case isControl(cell):
			at += 2
		case !unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf): // these take no column
			at++
		}
	}
	return at
}
