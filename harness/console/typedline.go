package console

import (
	"bytes"
	"cmp"
	"slices"
	"time"
)

const (
	minPart     = 4      // the least bytes of a part that may begin anywhere
	maxSkipped  = 7      // the most bytes that may be missing between two parts
	maxPartials = 64     // the most partials of a typed line
	maxPrompt   = 256    // the most bytes of a prompt
	promptEnds  = "$#>%" // the last character of a prompt, before a space
)

// A typedLine is a line that Send has typed, with the parts of its echo that have arrived. The type
// echoes has the rules.
type typedLine struct {
	renderings   [][]byte  // how a guest may show the line
	typedAt      int64     // the end of the text when the line was typed
	prompt       []byte    // the last line of the text when the line was typed
	partialUntil time.Time // the end of the time in which an incomplete echo is hidden; zero while the line is being typed

	partials  []partial // the ways to read the text so far as the beginning of the echo
	lineParts []span    // the parts that extend to the end of their line of text

	anywhere bool // the guest is known to echo, so the echo may begin anywhere
	echoed   bool // a complete echo was found, but not behind a prompt, where a second one may follow
}

// renderings returns the forms in which guests echo a line. A Linux terminal shows each control character
// as a caret and a letter; a line editor obeys control characters and shows none.
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

// A partial is a way to read text as the beginning of an echo in one or more parts. Bytes of the echo may
// be missing between the parts.
type partial struct {
	rendering []byte
	seen      int // the number of bytes of the rendering up to the end of the last part
	parts     []span
}

// plus returns the partial with another part of n bytes, which begins at an offset.
func (p partial) plus(begin int64, n int) partial {
	return partial{p.rendering, p.seen + n, append(slices.Clip(p.parts), span{begin, begin + int64(n)})}
}

// addPartial adds a partial to others, which are sorted by seen, the largest first. It adds none with the
// same rendering and the same seen as another.
func addPartial(all []partial, p partial) []partial {
	if len(all) == maxPartials || slices.ContainsFunc(all, func(a partial) bool { return &a.rendering[0] == &p.rendering[0] && a.seen == p.seen }) {
		return all
	}
	at, _ := slices.BinarySearchFunc(all, p, func(a, b partial) int { return cmp.Compare(b.seen, a.seen) })
	return slices.Insert(slices.Clone(all), at, p)
}

// A place is an offset in a line of text at which an echo may begin or continue.
type place struct {
	offset       int
	minPart      int // the least bytes of a part at this place
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

// A progress says how much of an echo has arrived up to the end of a line of text.
type progress struct {
	complete     []span // the parts of a complete echo; nil if the echo is incomplete
	undivided    bool   // a complete echo has one part, which fills its line of text from a place on
	behindPrompt bool   // the last part of a complete echo is behind a prompt

	partials  []partial
	lineParts []span
}

// last returns the last part of a complete echo.
func (p *progress) last() span { return p.complete[len(p.complete)-1] }

// advance returns how much of the echo has arrived after another line of text, which begins at the
// offset at.
func (l *typedLine) advance(text []byte, at int64) (now progress) {
	now.partials, now.lineParts = l.partials, slices.Clip(l.lineParts)
	places := l.places(text, at)
	for _, p := range places {
		if p.minPart == 1 && l.fills(text[p.offset:]) {
			begin := at + int64(p.offset)
			now.complete, now.undivided, now.behindPrompt = []span{{begin, at + int64(len(text))}}, true, p.behindPrompt
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
			// The last bytes may follow behind other text, where so few bytes cannot be recognized.
			almost := l.anywhere && n >= minPart && missing <= min(minPart-1, len(candidate.rendering)/minPart)
			switch {
			case missing == 0 && atEnd, almost:
				now.complete, now.behindPrompt = candidate.plus(begin, n).parts, p.behindPrompt
				return now
			case atEnd:
				now.partials = addPartial(now.partials, candidate.plus(begin, n))
				now.lineParts = append(now.lineParts, span{begin, begin + int64(n)})
			default:
				// The first bytes of the text behind the part may equal the next bytes of the
				// echo by chance. The part is then shorter.
				for shorter := n; shorter >= max(p.minPart, n-2); shorter-- {
					now.partials = addPartial(now.partials, candidate.plus(begin, shorter))
				}
			}
		}
	}
	return now
}

// fills reports whether a text is the complete line, apart from spaces at the end.
func (l *typedLine) fills(text []byte) bool {
	text = bytes.TrimRight(text, " ")
	return slices.ContainsFunc(l.renderings, func(r []byte) bool { return bytes.Equal(text, bytes.TrimRight(r, " ")) })
}

func isBlank(text []byte) bool { return len(bytes.TrimRight(text, " ")) == 0 }

// nextPart returns the length of the part with which text continues a partial, or 0 if it does not. The
// text begins at the place in, whose offset in the console's text is at.
//
// If the guest is known to echo, bytes may be missing before the part, because they were too few to be
// recognized. The partial that nextPart returns has skipped them. Behind a prompt any number of bytes may
// be missing: the line may have been typed while another program had the terminal, and the line editor
// shows only the rest.
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

// probable returns the parts of an incomplete echo that stay hidden: those of a guest that is known to
// echo, if they reach half of the line. Otherwise it returns nil.
func (l *typedLine) probable() []span {
	if len(l.partials) > 0 && l.anywhere && 2*l.partials[0].seen >= len(l.partials[0].rendering) {
		return l.partials[0].parts
	}
	return nil
}

// hiddenParts returns the parts of the line's echo that are hidden at the time at. The text ends with
// the unfinished lastLine, which begins at the offset begin. The parts are shown again at the time
// until, unless more of the echo arrives; until is zero if they stay hidden.
func (l *typedLine) hiddenParts(lastLine []byte, begin int64, at time.Time) (parts []span, until time.Time) {
	now, until := l.advance(lastLine, begin), l.partialUntil
	parts = now.lineParts
	if now.complete != nil { // only the line's end is missing
		parts, until = append(parts, now.complete...), time.Time{}
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
