package console

import (
	"bytes"
	"cmp"
	"slices"
	"time"
)

const (
	minPart     = 4      // bytes of a part that may begin anywhere
	maxSkipped  = 7      // bytes of a piece that is missing between two parts
	maxPartials = 64     // per typed line
	maxPrompt   = 256    // bytes
	promptEnds  = "$#>%" // the last character of a prompt, before a space
)

// A typedLine is a line that Send has typed, and how much of its echo has arrived. See echoes for the
// rules.
type typedLine struct {
	renderings   [][]byte  // how a guest may show the line
	typedAt      int64     // the end of the text when the line was typed
	prompt       []byte    // what stood on the last line of the text then
	partialUntil time.Time // until then a part is hidden without the rest; zero while the line is being typed

	partials  []partial // how to read the parts that have arrived
	lineParts []span    // parts that extend to the end of their line

	anywhere bool // the guest is known to echo: the echo may begin anywhere
	echoed   bool // the echo was whole but not behind a prompt, where the line may be shown again
}

// renderings returns how guests show a line: with a caret for each control character, as a Linux
// terminal does, or without them, as a line editor does that obeys them.
func renderings(line []byte) (all [][]byte) {
	var carets, obeyed []byte
	for _, b := range line {
		switch {
		case b == '\t':
			carets = append(carets, b)
		case b < ' ', b == 0x7f:
			carets = append(carets, '^', b^0x40)
		default:
			carets, obeyed = append(carets, b), append(obeyed, b)
		}
	}
	for _, text := range [][]byte{carets, obeyed} {
		if len(bytes.TrimSpace(text)) > 0 && (all == nil || !bytes.Equal(text, carets)) {
			all = append(all, text)
		}
	}
	return all
}

// A partial is a way to read text as the beginning of the echo, in one or more parts. Pieces may be
// missing between the parts.
type partial struct {
	rendering []byte
	seen      int // bytes of the rendering up to the end of the last part
	parts     []span
}

// plus returns the partial with another part of n bytes, which begins at an offset.
func (p partial) plus(begin int64, n int) partial {
	return partial{p.rendering, p.seen + n, append(slices.Clip(p.parts), span{begin, begin + int64(n)})}
}

// addPartial adds a partial to others, which are sorted by how much of the line they have seen. It
// does not add a second one that has seen as much of the same rendering.
func addPartial(all []partial, p partial) []partial {
	if len(all) == maxPartials || slices.ContainsFunc(all, func(a partial) bool { return &a.rendering[0] == &p.rendering[0] && a.seen == p.seen }) {
		return all
	}
	at, _ := slices.BinarySearchFunc(all, p, func(a, b partial) int { return cmp.Compare(b.seen, a.seen) })
	return slices.Insert(slices.Clone(all), at, p)
}

// A place is where in a line of text an echo may begin or continue.
type place struct {
	offset       int
	minPart      int // bytes of a part in this place
	behindPrompt bool
}

// places returns the places in a line of text that begins at an offset.
func (l *typedLine) places(text []byte, at int64) (all []place) {
	from := max(l.typedAt-at, 0)
	if from > 0 || l.typedAt == at {
		all = append(all, place{int(from), 1, len(l.prompt) > 0})
	} else {
		all = append(all, place{0, 1, false})
		if len(l.prompt) > 0 && bytes.HasPrefix(text, l.prompt) {
			all = append(all, place{len(l.prompt), 1, true})
		}
	}
	for i := int(from) + 1; i < min(len(text), maxPrompt); i++ {
		if text[i] == ' ' && bytes.IndexByte([]byte(promptEnds), text[i-1]) >= 0 {
			all = append(all, place{i + 1, 1, true})
		}
	}
	if l.echoed {
		return slices.DeleteFunc(all, func(p place) bool { return !p.behindPrompt })
	}
	for i := int(from) + 1; l.anywhere && i <= len(text)-minPart; i++ {
		all = append(all, place{i, minPart, false})
	}
	return all
}

// progress is how much of an echo has arrived up to the end of a line of text.
type progress struct {
	// Of a whole echo:
	whole        []span // its parts
	undivided    bool   // it fills its line from a place on
	behindPrompt bool   // its last part is behind a prompt

	partials  []partial
	lineParts []span
}

// last returns the last part of a whole echo.
func (p *progress) last() span { return p.whole[len(p.whole)-1] }

// advance returns how much of the echo has arrived after another line of text, which begins at an
// offset.
func (l *typedLine) advance(text []byte, at int64) (now progress) {
	now.partials, now.lineParts = l.partials, slices.Clip(l.lineParts)
	places := l.places(text, at)
	for _, p := range places {
		if p.minPart == 1 && l.fills(text[p.offset:]) {
			begin := at + int64(p.offset)
			now.whole, now.undivided, now.behindPrompt = []span{{begin, at + int64(len(text))}}, true, p.behindPrompt
			return now
		}
	}
	for _, p := range places {
		rest, begin := text[p.offset:], at+int64(p.offset)
		candidates := now.partials
		for _, rendering := range l.renderings {
			candidates = append(slices.Clip(candidates), partial{rendering: rendering})
		}
		for _, candidate := range candidates {
			candidate, n := l.nextPart(candidate, rest, begin, p)
			if n == 0 {
				continue
			}
			atEnd := isBlank(rest[n:])
			missing := len(bytes.TrimRight(candidate.rendering[candidate.seen+n:], " "))
			// The last bytes may come behind other text, too few to be told from it.
			almost := l.anywhere && n >= minPart && missing <= min(minPart-1, len(candidate.rendering)/minPart)
			switch {
			case missing == 0 && atEnd, almost:
				now.whole, now.behindPrompt = candidate.plus(begin, n).parts, p.behindPrompt
				return now
			case atEnd:
				now.partials = addPartial(now.partials, candidate.plus(begin, n))
				now.lineParts = append(now.lineParts, span{begin, begin + int64(n)})
			default:
				// The text behind the part may happen to begin like the rest of the line. Then
				// the part is shorter.
				for shorter := n; shorter >= max(p.minPart, n-2); shorter-- {
					now.partials = addPartial(now.partials, candidate.plus(begin, shorter))
				}
			}
		}
	}
	return now
}

// fills reports whether a text is the whole line, but for spaces at the end.
func (l *typedLine) fills(text []byte) bool {
	text = bytes.TrimRight(text, " ")
	return slices.ContainsFunc(l.renderings, func(r []byte) bool { return bytes.Equal(text, bytes.TrimRight(r, " ")) })
}

func isBlank(text []byte) bool { return len(bytes.TrimRight(text, " ")) == 0 }

// nextPart returns the length of the part that continues a partial at the beginning of text, which
// stands in a place at an offset, and 0 if there is none. If the guest is known to echo, a piece
// before the part may be missing, because it was too short to be found; the partial that nextPart
// returns has skipped it. Behind a prompt the piece may have any length: the line may have been
// typed while another program had the terminal, and the editor shows only the rest.
func (l *typedLine) nextPart(p partial, text []byte, at int64, in place) (partial, int) {
	if len(p.parts) > 0 && p.parts[len(p.parts)-1].To > at {
		return p, 0
	}
	if n := commonPrefix(text, p.rendering[p.seen:]); n >= in.minPart {
		return p, n
	}
	last := len(p.rendering)
	if !in.behindPrompt {
		last = min(last, p.seen+maxSkipped+1)
	}
	for seen := p.seen + 1; l.anywhere && seen < last; seen++ {
		if n := commonPrefix(text, p.rendering[seen:]); n >= minPart {
			p.seen = seen
			return p, n
		}
	}
	return p, 0
}

func commonPrefix(a, b []byte) (n int) {
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}

// probable returns the parts of an echo whose rest is not expected any more, if there are enough
// of them; otherwise nil.
func (l *typedLine) probable() []span {
	if len(l.partials) > 0 && l.anywhere && 2*l.partials[0].seen >= len(l.partials[0].rendering) {
		return l.partials[0].parts
	}
	return nil
}

// hiddenParts returns the parts of the line's echo that are hidden at one moment, when the text
// ends with an unfinished line that begins at an offset. They are shown at a time, unless more
// of the echo comes; the time is zero if they stay hidden.
func (l *typedLine) hiddenParts(lastLine []byte, begin int64, at time.Time) (parts []span, until time.Time) {
	now, until := l.advance(lastLine, begin), l.partialUntil
	parts = now.lineParts
	if now.whole != nil { // only the line's end is missing
		parts, until = append(parts, now.whole...), time.Time{}
	}
	for _, p := range now.partials {
		for _, part := range p.parts {
			if part.To-part.From >= minPart {
				parts = append(parts, part)
			}
		}
	}
	if !until.IsZero() && !at.Before(until) {
		return l.probable(), time.Time{}
	}
	return parts, until
}
