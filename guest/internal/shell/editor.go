package shell

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// An editor edits the line that is being typed, with a history of those before. What it shows is plain
// text, spaces, backspaces and at its beginning a carriage return: no escape sequence, and no question
// to the terminal, which a test does not answer. So a line that is longer than the
// terminal is wide can be typed, and edited as far as its last row goes; and a character that takes
// two columns is taken for one.
type editor struct {
	cells []string // the line: a character each, or a byte that is none
	at    int      // where the cursor is
	begun []byte   // a character or an escape sequence that is not complete

	history []string
	back    int    // lines that the one that is shown is back in it
	draft   string // what stood there before

	shown []byte // what is to be written to the terminal
}

// An ending says whether a key has ended a line, and how.
type ending int

const (
	goesOn      ending = iota
	entered            // by Enter
	interrupted        // by Ctrl-C: it is dropped
	ended              // by Ctrl-D, an empty one
)

const (
	longestLine = 4095 // bytes, as of a line that the terminal itself edits
	mostHistory = 100  // lines
)

// key takes a byte that was typed.
func (e *editor) key(b byte) ending {
	switch {
	case len(e.begun) > 0 && e.begun[0] == esc:
		if b >= ' ' {
			e.escape(b)
			return goesOn
		}
		e.begun = nil // it was the key Esc itself
	case b >= utf8.RuneSelf:
		if e.begun = append(e.begun, b); utf8.FullRune(e.begun) {
			e.character()
		}
		return goesOn
	case len(e.begun) > 0:
		e.character() // which has no end
	}
	switch b {
	case esc:
		e.begun = []byte{b}
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
		e.become(nil, 0)
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

// escape takes the next byte of an escape sequence: of a key of the terminal's.
func (e *editor) escape(b byte) {
	const longest = 16
	e.begun = append(e.begun, b)
	if len(e.begun) == 2 && (b == '[' || b == 'O') {
		return
	}
	if len(e.begun) > 2 && (b < '@' || b > '~') && len(e.begun) < longest {
		return
	}
	sequence := string(e.begun[1:])
	e.begun = nil
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

// character inserts what has begun, bytes of their own where it is no character.
func (e *editor) character() {
	text := string(e.begun)
	e.begun = nil
	for _, cell := range cellsOf(text) {
		e.insert(cell)
	}
}

func (e *editor) insert(cell string) {
	size := len(cell)
	for _, c := range e.cells {
		size += len(c)
	}
	if size > longestLine {
		return
	}
	if e.at == len(e.cells) { // as nearly always
		e.cells = append(e.cells, cell)
		e.at++
		e.show(cell)
		return
	}
	e.become(slices.Insert(slices.Clone(e.cells), e.at, cell), e.at+1)
}

func (e *editor) remove(from, to int) {
	if from < 0 || to > len(e.cells) {
		return
	}
	e.become(slices.Delete(slices.Clone(e.cells), from, to), from)
}

func (e *editor) move(to int) { e.become(e.cells, min(max(to, 0), len(e.cells))) }

// recall shows a line of the history, 0 for the one that was being typed.
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
	e.become(cells, len(cells))
}

func cellsOf(text string) (cells []string) {
	for len(text) > 0 {
		_, size := utf8.DecodeRuneInString(text)
		cells = append(cells, text[:size])
		text = text[size:]
	}
	return cells
}

// begin takes over a line that the terminal has shown, with at most so many columns behind
// it that are no part of it.
func (e *editor) begin(text string, behind int) {
	e.cells = cellsOf(text)
	e.at = len(e.cells)
	e.show("\r" + prompt + spaced(e.cells, 0) + strings.Repeat(" ", behind) + strings.Repeat("\b", behind))
}

// become makes the line another one and shows it, from the first difference on.
func (e *editor) become(cells []string, at int) {
	same := 0
	for same < min(len(e.cells), len(cells), e.at, at) && e.cells[same] == cells[same] {
		same++
	}
	e.goBack(column(e.cells[:e.at]) - column(e.cells[:same]))
	before, end := column(e.cells), column(cells)
	if slices.Equal(e.cells, cells) {
		end = column(cells[:at]) // the rest is there
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

// again is what shows the line, behind a prompt, once more.
func (e *editor) again() string {
	return spaced(e.cells, 0) + strings.Repeat("\b", column(e.cells)-column(e.cells[:e.at]))
}

// take returns the line and begins another one.
func (e *editor) take() (line string) {
	line = strings.Join(e.cells, "")
	e.cells, e.at, e.begun, e.back, e.draft = nil, 0, nil, 0, ""
	return line
}

// remember puts a line into the history.
func (e *editor) remember(line string) {
	if strings.TrimSpace(line) == "" || len(e.history) > 0 && e.history[len(e.history)-1] == line {
		return
	}
	e.history = append(e.history, line)
	if len(e.history) > mostHistory {
		e.history = e.history[1:]
	}
}

// spaced returns how cells, from one on, are shown: with spaces for tabs, which would not hide what
// they pass over, and control characters as the terminal shows them.
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

// column returns the column behind text that stands behind the prompt.
func column(cells []string) int {
	at := len(prompt)
	for _, cell := range cells {
		switch r, _ := utf8.DecodeRuneInString(cell); {
		case cell == "\t":
			at += 8 - at%8
		case isControl(cell):
			at += 2
		case !unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf): // those stand on others
			at++
		}
	}
	return at
}
