// Package termtext turns what a program prints on a terminal into the text that a person
// reads there.
//
// It is no terminal emulator: the text only grows, and nothing that was shown ever
// disappears from it, so what a search finds does not depend on when it looks.
//
//   - "\r\n", "\r\r\n" and "\n\r" end a line once: the output has "\n".
//   - Escape sequences (CSI, OSC, DCS and the others of ECMA-48) and control characters are
//     left out, but for the tab.
//   - Where the cursor goes back ("\r", "\b" or an escape sequence), what is then printed
//     over older text begins a line of its own. A progress bar that prints
//     "10%\r50%\r100%\n" becomes three lines, and so does a prompt that a shell redraws. Spaces that only erase
//     ("\b \b") are left out.
//   - A move to the right of the line's end becomes spaces.
//   - The beginning of an escape sequence is held back until it is complete. A line's end, or 4 KiB,
//     ends what is none: it is text then, without its first byte. So no byte of a guest hides
//     more than the rest of a line.
//
// A column is a character here: terminals give some of them two, or none. Bytes that are no
// UTF-8 stay as they are.
package termtext

import "bytes"

const (
	esc = 0x1b
	can = 0x18 // cancels a sequence
	sub = 0x1a // so does this
	bel = 0x07 // ends a string

	longest   = 4 << 10 // bytes of an escape sequence
	maxColumn = 255     // to which a move to the right goes
	tabStop   = 8
)

// A Filter is the state between two parts of a program's output. Its zero value is a terminal
// whose cursor is at the beginning of an empty line. Its fields are for encoding/json.
type Filter struct {
	Held   []byte `json:"held,omitempty"`   // the beginning of an escape sequence
	Column int    `json:"column,omitempty"` // of the cursor, from 0
	Width  int    `json:"width,omitempty"`  // columns that the output's last line has, with those to its left
	Spaces int    `json:"spaces,omitempty"` // printed over older text, just before the cursor
	Moved  bool   `json:"moved,omitempty"`  // the cursor is on another row than the output's last line
}

// Append appends the text of the next part of the output to dst. The result does not depend on
// how the output is split into parts.
func (f *Filter) Append(dst, output []byte) []byte {
	for at := 0; at < len(output); {
		if n, columns := f.plain(output[at:]); n > 0 {
			dst = append(dst, output[at:at+n]...)
			f.Column += columns
			f.Width = f.Column
			at += n
			continue
		}
		dst = f.next(dst, output[at])
		at++
	}
	return dst
}

// plain returns how many bytes at the beginning of the output go to the end of the line as they
// are, and how many columns those are.
func (f *Filter) plain(output []byte) (n, columns int) {
	if len(f.Held) > 0 || f.Column != f.Width || f.Spaces > 0 || f.Moved {
		return 0, 0
	}
	for n < len(output) && output[n] >= ' ' && output[n] != 0x7f {
		n++
	}
	for _, b := range output[:n] {
		columns += width(b)
	}
	return n, columns
}

// width is 1 for a byte that begins a character.
func width(b byte) int {
	return 1 - int(b>>7&^(b>>6))&1
}

// End appends what is held back. It is for the end of the output.
func (f *Filter) End(dst []byte) []byte {
	if len(f.Held) == 0 {
		return dst
	}
	return f.release(dst)
}

// next takes one byte.
func (f *Filter) next(dst []byte, b byte) []byte {
	if len(f.Held) > 0 {
		return f.sequence(dst, b)
	}
	switch {
	case b == esc:
		f.Held = append(f.Held, b)
	case b == '\n', b == '\v', b == '\f':
		*f = Filter{Held: f.Held}
		return append(dst, '\n')
	case b == '\r':
		f.moveTo(0)
	case b == '\b':
		f.moveTo(f.Column - 1)
	case b == '\t':
		stop := (f.Column/tabStop + 1) * tabStop
		if f.Column != f.Width || f.Spaces > 0 || f.Moved {
			f.moveTo(stop)
			break
		}
		f.Column, f.Width = stop, stop
		return append(dst, b)
	case b >= ' ' && b != 0x7f:
		return f.print(dst, b)
	}
	return dst
}

// print prints a byte elsewhere than at the end of the line.
func (f *Filter) print(dst []byte, b byte) []byte {
	switch over := f.Column < f.Width || f.Spaces > 0 || f.Moved; {
	case over && b == ' ':
		f.Column++
		f.Spaces++
		return dst
	case over:
		if f.Width > 0 {
			dst = append(dst, '\n')
		}
		dst = append(dst, bytes.Repeat([]byte{' '}, f.Spaces)...)
	default:
		dst = append(dst, bytes.Repeat([]byte{' '}, f.Column-f.Width)...)
	}
	f.Spaces, f.Moved = 0, false
	f.Column += width(b)
	f.Width = f.Column
	return append(dst, b)
}

func (f *Filter) moveTo(column int) {
	f.Column = min(max(column, 0), max(maxColumn, f.Width))
	f.Spaces = 0
}

// sequence takes one byte after the beginning of an escape sequence.
func (f *Filter) sequence(dst []byte, b byte) []byte {
	kind := byte(0)
	if len(f.Held) > 1 {
		kind = f.Held[1]
	}
	if b == can || b == sub {
		f.Held = f.Held[:0]
		return dst
	}
	if len(f.Held) == longest {
		return f.next(f.release(dst), b)
	}
	switch kind {
	case ']', 'P', 'X', '^', '_': // a string, up to BEL or ESC \
		switch last := f.Held[len(f.Held)-1]; {
		case b == bel, last == esc && b == '\\':
			f.Held = f.Held[:0]
		case last == esc: // which begins another sequence
			f.Held = append(f.Held[:0], esc)
			return f.sequence(dst, b)
		case b == '\n', b == '\r':
			return f.next(f.release(dst), b)
		default:
			f.Held = append(f.Held, b)
		}
		return dst
	}
	switch {
	case b == esc:
		f.Held = append(f.Held[:0], b)
	case b < ' ' || b >= 0x7f:
		return f.next(f.release(dst), b)
	case kind == '[' && b < 0x40, b < 0x30: // parameters, intermediate bytes
		f.Held = append(f.Held, b)
	case kind == 0 && bytes.IndexByte([]byte("[]PX^_"), b) >= 0:
		f.Held = append(f.Held, b)
	default:
		held := f.Held
		f.Held = f.Held[:0]
		switch kind {
		case '[':
			f.control(held[2:], b)
		case 0:
			f.escape(b)
		}
	}
	return dst
}

// release makes text of what is no escape sequence.
func (f *Filter) release(dst []byte) []byte {
	text := bytes.Clone(f.Held[1:])
	f.Held = f.Held[:0]
	return f.Append(dst, text)
}

// control does what a control sequence says, as far as it moves the cursor.
func (f *Filter) control(parameters []byte, final byte) {
	if len(parameters) > 0 && (parameters[0] >= 0x3c || parameters[len(parameters)-1] < 0x30) {
		return // a private one, or one with intermediate bytes
	}
	first, rest, _ := bytes.Cut(parameters, []byte{';'})
	n := number(first)
	switch final {
	case 'C', 'a':
		f.moveTo(f.Column + n)
	case 'D':
		f.moveTo(f.Column - n)
	case 'G', '`':
		f.moveTo(n - 1)
	case 'A', 'B', 'd', 'e':
		f.toRow(f.Column)
	case 'E', 'F':
		f.toRow(0)
	case 'H', 'f':
		second, _, _ := bytes.Cut(rest, []byte{';'})
		f.toRow(number(second) - 1)
	case 'u': // to where the cursor once was
		f.toRow(0)
	}
}

// escape does what a sequence of one byte says, as far as it moves the cursor.
func (f *Filter) escape(final byte) {
	switch final {
	case 'D', 'M':
		f.toRow(f.Column)
	case 'E', 'c', '8':
		f.toRow(0)
	}
}

func (f *Filter) toRow(column int) {
	f.moveTo(column)
	f.Moved = true
}

// number reads a parameter, which is 1 if it is not given or 0.
func number(text []byte) int {
	n := 0
	for _, b := range text {
		if b < '0' || b > '9' {
			break // a subparameter
		}
		n = min(10*n+int(b-'0'), 1<<16)
	}
	return max(n, 1)
}
