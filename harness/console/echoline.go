package console

import (
	"bytes"
	"cmp"
	"slices"
	"time"
)

// A sentLine is a line that was typed.
type sentLine struct {
	shown  [][]byte  // as terminals show it
	at     int64     // where the text ended then
	prompt []byte    // what stood on its last line
	until  time.Time // when a part of an echo is one no longer; zero while the line is being typed
	runs   []run     // the parts that have come
	lines  []span    // parts that go to the end of their lines
	early  bool      // it was echoed, without a prompt

	anywhere bool // its echo may stand behind any text
}

// A run is one or more parts of an echo, each the next one.
type run struct {
	shown []byte // the line
	seen  int    // bytes of it in the parts
	parts []span
}

// howShown returns how terminals show a line: with a caret for a control character, as Linux's
// does, or without those that an editor of lines obeys.
func howShown(line []byte) (shown [][]byte) {
	var caret, obeyed []byte
	for _, b := range line {
		switch {
		case b == '\t':
			caret = append(caret, b)
		case b < ' ', b == 0x7f:
			caret = append(caret, '^', b^0x40)
		default:
			caret, obeyed = append(caret, b), append(obeyed, b)
		}
	}
	for _, text := range [][]byte{caret, obeyed} {
		if len(bytes.TrimSpace(text)) > 0 && (shown == nil || !bytes.Equal(text, caret)) {
			shown = append(shown, text)
		}
	}
	return shown
}

// A place is where an echo may begin in a line.
type place struct {
	offset   int
	least    int  // bytes that a part has there
	prompted bool // behind a prompt
}

// places returns where in a line that begins at an offset the echo may begin or go on.
func (s *sentLine) places(line []byte, at int64) (all []place) {
	from := max(s.at-at, 0)
	if from > int64(len(line)) {
		return nil // it came before
	}
	if from > 0 || s.at == at {
		all = append(all, place{int(from), 1, len(s.prompt) > 0})
	} else {
		all = append(all, place{0, 1, false})
		if len(s.prompt) > 0 && bytes.HasPrefix(line, s.prompt) {
			all = append(all, place{len(s.prompt), 1, true})
		}
	}
	for i := int(from) + 1; i < min(len(line), longestPrompt); i++ {
		if line[i] == ' ' && bytes.IndexByte([]byte(endsPrompts), line[i-1]) >= 0 {
			all = append(all, place{i + 1, 1, true})
		}
	}
	if s.early {
		return slices.DeleteFunc(all, func(p place) bool { return !p.prompted })
	}
	for i := int(from) + 1; s.anywhere && i <= len(line)-shortestPart; i++ {
		all = append(all, place{i, shortestPart, false})
	}
	return all
}

// progress is how far the echo of a line has come.
type progress struct {
	whole     []span // its parts, if it is whole
	undivided bool   // which is one, in its place
	prompted  bool   // the last of them stands behind a prompt
	runs      []run  // if it is not
	lines     []span // parts that go to the ends of their lines
}

// follow follows the echo through a line that begins at an offset.
func (s *sentLine) follow(line []byte, at int64) (now progress) {
	now.runs, now.lines = s.runs, slices.Clip(s.lines)
	places := s.places(line, at)
	for _, p := range places {
		rest := bytes.TrimRight(line[p.offset:], " ")
		if p.least == 1 && slices.ContainsFunc(s.shown, func(shown []byte) bool { return bytes.Equal(rest, bytes.TrimRight(shown, " ")) }) {
			begin := at + int64(p.offset)
			now.whole, now.undivided, now.prompted = []span{{begin, at + int64(len(line))}}, true, p.prompted
			return now
		}
	}
	for _, p := range places {
		rest, begin := line[p.offset:], at+int64(p.offset)
		known := now.runs
		for i := range len(known) + len(s.shown) {
			r, n := s.goesOn(s.run(known, i), rest, begin, p)
			if n == 0 {
				continue
			}
			atEnd := len(bytes.TrimRight(rest[n:], " ")) == 0
			missing := len(bytes.TrimRight(r.shown[r.seen+n:], " "))
			switch {
			case missing == 0 && atEnd, s.anywhere && n >= shortestPart && missing <= min(shortestPart-1, len(r.shown)/shortestPart):
				now.whole, now.prompted = append(slices.Clip(r.parts), span{begin, begin + int64(n)}), p.prompted
				return now
			case atEnd:
				now.runs = addRun(now.runs, r.with(n, begin))
				now.lines = append(now.lines, span{begin, begin + int64(n)})
			default:
				// The text behind it may begin as what is missing does.
				for least := max(p.least, n-2); n >= least; n-- {
					now.runs = addRun(now.runs, r.with(n, begin))
				}
			}
		}
	}
	return now
}

// goesOn returns of how many bytes the next part of a run is that begins at an offset, in a place;
// 0 if there is none. The run has skipped parts that are too short to be found, or that an editor has
// not shown before it showed the rest behind its prompt.
func (s *sentLine) goesOn(r run, text []byte, at int64, p place) (run, int) {
	if len(r.parts) > 0 && r.parts[len(r.parts)-1].To > at {
		return r, 0
	}
	if n := commonPrefix(text, r.shown[r.seen:]); n >= p.least {
		return r, n
	}
	last := len(r.shown)
	if !p.prompted {
		last = min(last, r.seen+mostSkipped)
	}
	for seen := r.seen + 1; s.anywhere && seen < last; seen++ {
		if n := commonPrefix(text, r.shown[seen:]); n >= shortestPart {
			r.seen = seen
			return r, n
		}
	}
	return r, 0
}

// most returns the parts of an echo that has come so far that it is one without its rest; nil
// if it has not.
func (s *sentLine) most() []span {
	if len(s.runs) > 0 && s.anywhere && 2*s.runs[0].seen >= len(s.runs[0].shown) {
		return s.runs[0].parts
	}
	return nil
}

// run returns one of the runs, or behind them one that has not begun.
func (s *sentLine) run(runs []run, i int) run {
	if i < len(runs) {
		return runs[i]
	}
	return run{shown: s.shown[i-len(runs)]}
}

// with returns a run that has another part, of n bytes, which begins at an offset.
func (r run) with(n int, begin int64) run {
	return run{r.shown, r.seen + n, append(slices.Clip(r.parts), span{begin, begin + int64(n)})}
}

// addRun adds a run to others, of which that which has come farthest is the first, if none has come as far
// before.
func addRun(runs []run, r run) []run {
	if len(runs) == mostRuns || slices.ContainsFunc(runs, func(a run) bool { return &a.shown[0] == &r.shown[0] && a.seen == r.seen }) {
		return runs
	}
	at, _ := slices.BinarySearchFunc(runs, r, func(a, b run) int { return cmp.Compare(b.seen, a.seen) })
	return slices.Insert(slices.Clone(runs), at, r)
}

func commonPrefix(a, b []byte) (n int) {
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}
