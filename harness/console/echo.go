package console

import (
	"bytes"
	"cmp"
	"slices"
	"strings"
	"time"
)

const (
	echoWindow    = 64 << 10        // bytes of text after the typing of a line that may have its echo
	partialWithin = 5 * time.Second // how long after the typing of a line an incomplete echo is hidden
)

// A span is a part of the text, between two offsets.
type span struct {
	From int64 `json:"from"`
	To   int64 `json:"to"`
}

// within reports whether s is a part of other.
func (s span) within(other span) bool { return other.From <= s.From && s.To <= other.To }

// echoes finds the echo of each line that Send types, so that no pattern matches it.
//
// A terminal driver echoes a line when the line arrives; a line editor shows the line when the program
// reads it. Output of the guest may divide the echo, and an editor may break the line or show it again.
// Some guests do not echo. The console does not know whether its guest echoes. It hides text only if
// these rules make the text an echo:
//
//   - An echo begins at the end that the text had when the line was typed, at the start of a line, or
//     behind a prompt. A prompt is the last line of the text when the line was typed, or any text that
//     ends like "$ ".
//   - An echo extends to the end of its line.
//   - An echo may be divided into parts. Each part begins at such a place. Behind a part that is not
//     the last, the line ends or other text follows.
//   - A guest that has once shown a complete echo is known to echo. From then on an echo and its parts
//     may begin anywhere, because a Linux terminal echoes in the middle of what a program prints.
//     A part that begins anywhere has at least 4 bytes, and need not extend to the end of its line.
//     Up to 7 bytes may be missing before a part, and up to 3 at the end of the echo.
//   - A line has one echo. But if that echo was not behind a prompt, a second one may follow behind the
//     prompt, from an editor that shows the line that the terminal has echoed already.
//   - An incomplete echo is hidden for 5 s after the line was typed. Then it is shown, unless it has half
//     of the line or more and the guest is known to echo.
//   - An echo arrives within 64 KiB of text.
//
// The rules apply to complete lines of text, so the hidden text does not depend on how the text was
// split when it arrived. The last line, which has no end yet, is examined again at each search of Expect.
type echoes struct {
	typed []*typedLine // the lines whose echo may still arrive, in the order in which they were typed
	next  int64        // the offset of the first line of text that has not been searched
	found []span       // the parts of complete echoes, in order
}

// expectEcho makes the console look for the echoes of lines that are about to be typed. The caller must
// call typed when they have been typed.
func (c *Console) expectEcho(p []byte) (typed func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := &c.echoes
	lastLine := bytes.LastIndexByte(c.text.bytes, '\n') + 1
	if e.look(&c.text); len(e.typed) == 0 {
		e.next = c.text.base + int64(lastLine)
	}
	var lines []*typedLine
	for line := range bytes.FieldsFuncSeq(p, func(r rune) bool { return r == '\r' || r == '\n' }) {
		l := &typedLine{renderings: renderings(line), typedAt: c.text.end(), anywhere: len(e.found) > 0}
		if prompt := c.text.bytes[lastLine:]; len(prompt) <= maxPrompt {
			l.prompt = bytes.Clone(prompt)
		}
		lines = append(lines, l)
	}
	e.typed = append(e.typed, lines...)
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, l := range lines {
			l.partialUntil = time.Now().Add(partialWithin)
		}
		c.wake()
	}
}

// look searches the complete lines of text that have arrived since the last call.
func (e *echoes) look(text *buffer) {
	for len(e.typed) > 0 {
		e.next = max(e.next, text.base)
		rest, _ := text.from(e.next)
		nl := bytes.IndexByte(rest, '\n')
		if nl < 0 {
			e.giveUp(text.end())
			return
		}
		e.searchLine(rest[:nl], e.next)
		e.next += int64(nl) + 1
		e.giveUp(e.next)
	}
}

// giveUp forgets the lines that were typed more than echoWindow before an offset.
func (e *echoes) giveUp(at int64) {
	e.typed = slices.DeleteFunc(e.typed, func(l *typedLine) bool { return at-l.typedAt > echoWindow })
}

// searchLine searches a complete line of text, which begins at the offset at, for echoes. It prefers an
// undivided echo, which fills the line of text, to other echoes, and typed lines without an echo to
// lines that may have a second one.
func (e *echoes) searchLine(text []byte, at int64) {
	for _, again := range []bool{false, true} {
		for i, l := range e.typed {
			if l.echoed != again {
				continue
			}
			if now := l.advance(text, at); now.undivided {
				e.complete(i, now)
				return
			}
		}
	}
	var taken []span // the ends of the echoes in this line
	for _, again := range []bool{false, true} {
		for i := 0; i < len(e.typed); i++ {
			l := e.typed[i]
			if l.echoed != again {
				continue
			}
			now := l.advance(text, at)
			if now.complete == nil || slices.ContainsFunc(taken, now.last().within) {
				l.partials, l.lineParts = now.partials, now.lineParts
				continue
			}
			taken = append(taken, now.last())
			i = e.complete(i, now)
		}
	}
}

// complete records the complete echo of the i-th typed line. It returns the index before that of the next
// typed line that may have an echo.
func (e *echoes) complete(i int, now progress) int {
	e.add(now.complete...)
	e.add(now.lineParts...)
	l := e.typed[i]
	if !now.behindPrompt {
		l.echoed, l.anywhere, l.partials, l.lineParts = true, false, nil, nil
		return i
	}
	// The guest has read this line, and therefore every line before it, so their echoes are over.
	for _, earlier := range e.typed[:i] {
		e.add(earlier.probable()...)
	}
	e.typed = slices.Delete(e.typed, 0, i+1)
	return -1
}

// add adds the parts of a complete echo.
func (e *echoes) add(parts ...span) {
	for _, part := range parts {
		at, _ := slices.BinarySearchFunc(e.found, part, func(a, b span) int { return cmp.Compare(a.From, b.From) })
		e.found = slices.Insert(e.found, at, part)
	}
}

// A hidden lists the parts of the text that no pattern matches at one moment.
type hidden struct {
	parts  []span
	unsure int64     // the offset of the first part that may be shown again; -1 if there is none
	until  time.Time // when such a part is shown again, unless more of its echo arrives; zero if none is
}

// hidden returns the parts that are hidden from an offset on, at a time.
func (e *echoes) hidden(text *buffer, from int64, at time.Time) hidden {
	e.look(text)
	h := hidden{unsure: -1}
	for _, part := range slices.Backward(e.found) {
		if part.To <= from {
			break
		}
		h.parts = append(h.parts, part)
	}
	lastLine, _ := text.from(max(e.next, text.base))
	begin := text.end() - int64(len(lastLine))
	for _, l := range e.typed {
		parts, until := l.hiddenParts(lastLine, begin, at)
		h.parts = append(h.parts, parts...)
		for _, part := range parts {
			if h.unsure < 0 || part.From < h.unsure {
				h.unsure = part.From
			}
		}
		if len(parts) > 0 && !until.IsZero() && (h.until.IsZero() || until.Before(h.until)) {
			h.until = until
		}
	}
	return h
}

// echoByte stands for each hidden byte. It is in no text, and so in no pattern.
const echoByte = 0

// hide returns text, which begins at an offset, with its hidden bytes replaced.
func (h *hidden) hide(text []byte, at int64) []byte {
	if len(h.parts) == 0 {
		return text
	}
	text = bytes.Clone(text)
	for _, s := range h.parts {
		for i := max(s.From-at, 0); i < min(s.To-at, int64(len(text))); i++ {
			text[i] = echoByte
		}
	}
	return text
}

// withoutEchoes returns a text without its hidden bytes.
func withoutEchoes(text string) string { return strings.ReplaceAll(text, string(rune(echoByte)), "") }
