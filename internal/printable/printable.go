// Package printable makes bytes that somebody else chose safe for a person's terminal. A guest
// can set the clipboard, the title, the colours and the direction of text of every terminal that
// shows what it has printed: in a failing test's message as in a log that is read with cat.
//
// What could do so becomes visible: \x1b for a byte (control characters but newline and tab, and
// what is no UTF-8), \u202e for a character of more than one byte (the control characters from
// U+0080 on, and those that change the direction of text or end lines). All else stays as it is.
package printable

import (
	"bytes"
	"fmt"
	"io"
	"unicode"
	"unicode/utf8"
)

// acts says whether a terminal, or an editor, does something else with a character than to
// show it in its place.
func acts(r rune) bool {
	if r < utf8.RuneSelf {
		return r < ' ' && r != '\n' && r != '\t' || r == 0x7f
	}
	return r < 0xa0 || r == '\u2028' || r == '\u2029' || unicode.Is(unicode.Bidi_Control, r)
}

// Text returns text for a report. It leaves alone what it has made safe before, so a guest that
// prints the four characters \x1b cannot be told from one that prints the byte; where that matters
// use a [Writer].
func Text(text string) string {
	safe := appendText(nil, []byte(text), false)
	if string(safe) == text {
		return text
	}
	return string(safe)
}

// Lines returns lines for a report, as Text does each.
func Lines(lines []string) []string {
	safe := make([]string, len(lines))
	for i, line := range lines {
		safe[i] = Text(line)
	}
	return safe
}

// JSON returns a JSON text that means the same and is safe too. Package encoding/json escapes
// only the control characters below U+0020.
func JSON(text []byte) []byte {
	if !bytes.ContainsFunc(text, func(r rune) bool { return r >= 0x7f && acts(r) }) {
		return text
	}
	var safe []byte
	for _, r := range string(text) {
		if r >= 0x7f && acts(r) { // the others end lines
			safe = fmt.Appendf(safe, `\u%04x`, r)
		} else {
			safe = utf8.AppendRune(safe, r)
		}
	}
	return safe
}

// appendText appends text whose end is no part of a character. Exact text has only escapes that
// stand for something.
func appendText(dst, text []byte, exact bool) []byte {
	for at := 0; at < len(text); {
		if b := text[at]; b < utf8.RuneSelf {
			at++
			if acts(rune(b)) || exact && b == '\\' && at < len(text) && (text[at] == 'x' || text[at] == 'u') {
				dst = fmt.Appendf(dst, `\x%02x`, b)
			} else {
				dst = append(dst, b)
			}
			continue
		}
		r, size := utf8.DecodeRune(text[at:])
		switch {
		case r == utf8.RuneError && size == 1:
			dst = fmt.Appendf(dst, `\x%02x`, text[at])
		case acts(r):
			dst = fmt.Appendf(dst, `\u%04x`, r)
		default:
			dst = append(dst, text[at:at+size]...)
		}
		at += size
	}
	return dst
}

// A Writer makes all that is written to it safe, however it is split over writes. What it writes
// is exact: a backslash before x or u is written as \x5c, so that every \x and \u stands for
// something and the bytes can be had back.
type Writer struct {
	w    io.Writer
	held []byte // what begins a character or an escape, until more comes
	buf  []byte
}

// NewWriter returns a Writer that writes to w.
func NewWriter(w io.Writer) *Writer { return &Writer{w: w} }

// Write writes p, but for the part of a character at its end.
func (w *Writer) Write(p []byte) (int, error) {
	text := p
	if len(w.held) > 0 {
		text = append(w.held, p...)
	}
	whole := len(text) - begun(text)
	err := w.write(text[:whole])
	w.held = append([]byte(nil), text[whole:]...)
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

// Flush writes what Write holds back. It is for the end.
func (w *Writer) Flush() error {
	held := w.held
	w.held = nil
	return w.write(held)
}

func (w *Writer) write(text []byte) error {
	if len(text) == 0 {
		return nil
	}
	w.buf = appendText(w.buf[:0], text, true)
	_, err := w.w.Write(w.buf)
	return err
}

// begun returns the number of bytes at the end of a text that begin an unfinished character, or are
// a backslash, whose meaning the next byte decides.
func begun(text []byte) int {
	for n := 1; n < utf8.UTFMax && n <= len(text); n++ {
		if last := text[len(text)-n:]; utf8.RuneStart(last[0]) {
			if !utf8.FullRune(last) || n == 1 && last[0] == '\\' {
				return n
			}
			return 0
		}
	}
	return 0
}
