// Package printable makes untrusted text safe for a terminal. A guest's output can set the
// clipboard, the title, the colours and the text direction of every terminal that shows it, in
// the message of a failing test or in a log that a person reads with cat.
//
// The package replaces control characters by visible escapes. A byte becomes \x1b, for example:
// every ASCII control character except newline and tab, and every byte that is not UTF-8. A longer
// character becomes \u202e, for example: the control characters from U+0080 on, and the characters
// that change the direction of text or end lines. All other text stays unchanged.
package printable

import (
	"bytes"
	"fmt"
	"io"
	"unicode"
	"unicode/utf8"
)

// acts reports whether a character makes a terminal or an editor do anything other than show it
// in its place.
func acts(r rune) bool {
	if r < utf8.RuneSelf {
		return r < ' ' && r != '\n' && r != '\t' || r == 0x7f
	}
	return r < 0xa0 || r == '\u2028' || r == '\u2029' || unicode.Is(unicode.Bidi_Control, r)
}

// Text returns text with escapes. It does not change text that is safe already, so the result does
// not tell whether a guest printed the byte 0x1b or the four characters \x1b. A [Writer] does.
func Text(text string) string {
	safe := appendText(nil, []byte(text), false)
	if string(safe) == text {
		return text
	}
	return string(safe)
}

// Lines returns a copy of lines, each changed as by Text.
func Lines(lines []string) []string {
	safe := make([]string, len(lines))
	for i, line := range lines {
		safe[i] = Text(line)
	}
	return safe
}

// JSON returns a safe JSON text with the same value. It is needed because package encoding/json
// escapes only the control characters below U+0020.
func JSON(text []byte) []byte {
	if !bytes.ContainsFunc(text, func(r rune) bool { return r >= 0x7f && acts(r) }) {
		return text
	}
	var safe []byte
	for _, r := range string(text) {
		if r >= 0x7f && acts(r) { // smaller ones are line ends between JSON tokens
			safe = fmt.Appendf(safe, `\u%04x`, r)
		} else {
			safe = utf8.AppendRune(safe, r)
		}
	}
	return safe
}

// appendText appends text, which must not end within a character, with escapes. If exact is true,
// it also escapes a backslash that would look like the start of an escape.
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

// A Writer makes the text that is written to it safe; calls of Write may split the text anywhere.
// It writes a backslash before x or u as \x5c. So every \x and \u in its output is an escape, and a
// reader can restore the original bytes.
type Writer struct {
	w    io.Writer
	held []byte // the start of a character or of an escape, until the next Write
	buf  []byte
}

// NewWriter returns a Writer that writes to w.
func NewWriter(w io.Writer) *Writer { return &Writer{w: w} }

// Write writes p. It holds an incomplete character at the end of p back.
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

// Flush writes the bytes that Write holds back. Call it after the last Write.
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

// begun returns the number of bytes at the end of a text that belong to an incomplete character. A
// backslash counts as incomplete too, because the next byte decides what it means.
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
