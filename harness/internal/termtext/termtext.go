// Package termtext turns the output of a program into the text that a person reads on a terminal.
//
// It is no terminal emulator. The text only grows, and nothing that was shown disappears from it, so
// the result of a search does not depend on when the search looks.
//
//   - "\r\n", "\r\r\n" and "\n\r" end a line once, and become "\n".
//   - The text has no escape sequences (CSI, OSC, DCS and the others of ECMA-48), and no control
//     characters except the tab.
//   - When the cursor goes back ("\r", "\b" or an escape sequence) and the program prints over older
//     text, the new text begins a new line. So a progress bar that prints "10%\r50%\r100%\n" becomes
//     three lines, and a prompt that a shell redraws becomes two. Spaces that only erase ("\b \b")
//     are left out.
//   - A move to the right of the line's end becomes spaces.
//   - The beginning of an escape sequence is held back until the sequence is complete. At the end of
//     the line, or after 4 KiB, it was no sequence: it becomes text, without its first byte. So no
//     byte hides more than the rest of its line.
//
// A character counts as one column, although terminals give some characters two or none. Bytes that
// are not UTF-8 stay as they are.
package termtext

import "bytes"

const (
	esc = 0x1b
	can = 0x18 // cancels a sequence
	sub = 0x1a // so does this
	bel = 0x07 // ends a string

	maxHeld   = 4 << 10 // bytes of an escape sequence
	maxColumn = 255     // a move to the right ends here
	tabStop   = 8
)

// A Filter is the state between two parts of a program's output. The zero value is a terminal whose
// cursor is at the beginning of an empty line. The fields are exported for package encoding/json.
type Filter struct {
	Held   []byte `json:"held,omitempty"`   // the beginning of an escape sequence
	Column int    `json:"column,omitempty"` // of the cursor, from 0
	Width  int    `json:"width,omitempty"`  // of the text's last line, in columns, counted from the left margin
	Spaces int    `json:"spaces,omitempty"` // that were printed over older text, directly before the cursor
	Moved  bool   `json:"moved,omitempty"`  // the cursor is on another row than the text's last line
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

// plain returns how many bytes at the beginning of the output extend the last line unchanged, and
// how many columns they have.
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

// width returns 1 for a byte that begins a character, and 0 for any other.
func width(b byte) int {
	return 1 - int(b>>7&^(b>>6))&1
}

// End appends what was held back. Call it at the end of the output.
func (f *Filter) End(dst []byte) []byte {
	if len(f.Held) == 0 {
		return dst
	}
	return f.release(dst)
}

// next takes the next byte of the output.
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

// print prints a byte for which plain returned 0, because it may not extend the last line unchanged.
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
	if len(f.Held) == maxHeld {
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

// release turns the held bytes, which are no escape sequence, into text.
func (f *Filter) release(dst []byte) []byte {
	text := bytes.Clone(f.Held[1:])
	f.Held = f.Held[:0]
	return f.Append(dst, text)
}

// control obeys a control sequence if it moves the cursor.
func (f *Filter) control(parameters []byte, final byte) {
	if len(parameters) > 0 && (parameters[0] >= 0x3c || parameters[len(parameters)-1] < 0x30) {
		return // a private sequence, or one with intermediate bytes
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
	case 'u': // to a saved position, which is not known
		f.toRow(0)
	}
}

// escape obeys an escape sequence of one byte if it moves the cursor.
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

// number returns the value of a parameter. A missing parameter and 0 count as 1.
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
