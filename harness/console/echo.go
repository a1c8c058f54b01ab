package console

import (
	"bytes"
	"cmp"
	"slices"
	"time"
)

const (
	echoWithin       = 64 << 10        // bytes of text after a line was typed in which its echo is looked for
	partOfEchoWithin = 5 * time.Second // from typing on, in which a part of an echo is taken for one
	shortestPart     = 4               // bytes, of a part that stands anywhere
	mostSkipped      = 8               // bytes, in shorter parts
	mostRuns         = 64              // that are followed for a line
	longestPrompt    = 256             // bytes
	endsPrompts      = "$#>%"          // before a space
	unmatched        = 0               // a byte that is in no text: it stands for those of an echo
)

// A span is a part of the console's text.
type span struct {
	From int64 `json:"from"`
	To   int64 `json:"to"`
}

// echoes finds the echo of what Send types, so that no pattern matches it. A terminal, or an
// editor of lines, shows a line that is typed once more, sooner or later, perhaps in parts: output
// that comes meanwhile divides it, editors break lines or begin anew. A guest that does not echo
// shows nothing. So nothing is left out because an echo is due, but only text that is one:
//
//   - An echo stands where the output stood when the line was typed, at the beginning of a line, or
//     behind a prompt: what stood on the line when it was typed, or something that ends like "$ ".
//   - It goes to the end of its line.
//   - It may be divided. Each part but the last goes to the end of its line too, or has
//     other text behind it.
//   - Once a guest has echoed so, an echo and its parts may stand anywhere: a Linux terminal
//     echoes also in the middle of what a program prints. Then some of it may also be missing.
//   - Each line has one echo. An editor may show a line that came early once more behind its prompt.
//   - For 5 s a part of an echo is one; then only if the rest has come, or if it is half of the line
//     or more and the guest has echoed.
//
// An echo is found in whole lines, so it does not depend on how they come.
type echoes struct {
	sent  []*sentLine // whose echo may still come, in order
	next  int64       // the offset of the first line that has not been looked at
	found []span      // whole echoes, in order; a guest that has one echoes
}

// expectEcho makes the console look for the echo of what is about to be typed. The caller calls typed
// when that is done.
func (c *Console) expectEcho(p []byte) (typed func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := &c.echoes
	start := bytes.LastIndexByte(c.text.bytes, '\n') + 1
	if e.look(&c.text); len(e.sent) == 0 {
		e.next = c.text.base + int64(start)
	}
	var lines []*sentLine
	for line := range bytes.FieldsFuncSeq(p, func(r rune) bool { return r == '\r' || r == '\n' }) {
		s := &sentLine{shown: howShown(line), at: c.text.end(), anywhere: len(e.found) > 0}
		if prompt := c.text.bytes[start:]; len(prompt) <= longestPrompt {
			s.prompt = bytes.Clone(prompt)
		}
		lines = append(lines, s)
	}
	e.sent = append(e.sent, lines...)
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, s := range lines {
			s.until = time.Now().Add(partOfEchoWithin)
		}
		c.wake()
	}
}

// look looks for echoes in the lines that have come.
func (e *echoes) look(text *buffer) {
	for len(e.sent) > 0 {
		e.next = max(e.next, text.base)
		rest, _ := text.from(e.next)
		nl := bytes.IndexByte(rest, '\n')
		if nl < 0 {
			e.giveUp(text.end())
			return
		}
		e.line(rest[:nl], e.next)
		e.next += int64(nl) + 1
		e.giveUp(e.next)
	}
}

func (e *echoes) giveUp(at int64) {
	e.sent = slices.DeleteFunc(e.sent, func(s *sentLine) bool { return at-s.at > echoWithin })
}

// line looks for echoes in a whole line that begins at an offset.
func (e *echoes) line(line []byte, at int64) {
	var taken []span
	for _, undivided := range []bool{true, false} {
		for _, early := range []bool{false, true} { // a line that was just typed goes before one that is shown again
			for i := 0; i < len(e.sent); i++ {
				s := e.sent[i]
				if s.early != early {
					continue
				}
				now := s.follow(line, at)
				if now.whole == nil || slices.ContainsFunc(taken, now.whole[len(now.whole)-1].within) {
					if !undivided {
						s.runs, s.lines = now.runs, now.lines
					}
					continue
				}
				if undivided && !now.undivided {
					continue
				}
				taken = append(taken, now.whole[len(now.whole)-1])
				for _, part := range append(now.whole, now.lines...) {
					e.add(part)
				}
				i = e.shown(i, now.prompted)
				if undivided {
					return // nothing else is in this line
				}
			}
		}
	}
}

// shown notes that the echo of a line is whole, and returns the index before the next one.
func (e *echoes) shown(i int, prompted bool) int {
	switch s := e.sent[i]; {
	case prompted: // so what was typed before has been read, and shown as far as it will be
		for _, earlier := range e.sent[:i] {
			for _, part := range earlier.most() {
				e.add(part)
			}
		}
		e.sent = slices.Delete(e.sent, 0, i+1)
		return -1
	case s.early:
		e.sent = slices.Delete(e.sent, i, i+1)
		return i - 1
	default:
		s.early, s.anywhere, s.runs, s.lines = true, false, nil, nil
		return i
	}
}

// within says whether a part is in another one.
func (s span) within(other span) bool { return other.From <= s.From && s.To <= other.To }

// add adds a part of a whole echo.
func (e *echoes) add(part span) {
	at, _ := slices.BinarySearchFunc(e.found, part, func(a, b span) int { return cmp.Compare(a.From, b.From) })
	e.found = slices.Insert(e.found, at, part)
}

// hidden is what of the console's text no pattern matches at one moment.
type hidden struct {
	parts  []span
	unsure int64     // where the first part begins that may be text yet; -1 if there is none
	until  time.Time // when that part is text, if no more comes; zero if that does not happen
}

// hidden returns what is to be hidden of the text from an offset on.
func (e *echoes) hidden(text *buffer, from int64, at time.Time) hidden {
	e.look(text)
	h := hidden{unsure: -1}
	for _, part := range slices.Backward(e.found) {
		if part.To <= from {
			break
		}
		h.parts = append(h.parts, part)
	}
	unfinished, _ := text.from(max(e.next, text.base))
	begin := text.end() - int64(len(unfinished))
	for _, s := range e.sent {
		now, until := s.follow(unfinished, begin), s.until
		parts := slices.Clip(now.lines)
		if now.whole != nil { // but for the line's end
			parts, until = append(parts, now.whole...), time.Time{}
		}
		for _, r := range now.runs {
			for _, part := range r.parts {
				if part.To-part.From >= shortestPart {
					parts = append(parts, part)
				}
			}
		}
		if !until.IsZero() && !at.Before(until) {
			parts, until = s.most(), time.Time{}
		}
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

// hide returns text, which begins at an offset, with bytes that no pattern names in place of
// what is hidden.
func (h *hidden) hide(text []byte, at int64) []byte {
	if len(h.parts) == 0 {
		return text
	}
	text = bytes.Clone(text)
	for _, s := range h.parts {
		for i := max(s.From-at, 0); i < min(s.To-at, int64(len(text))); i++ {
			text[i] = unmatched
		}
	}
	return text
}
