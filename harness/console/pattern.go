package console

import (
	"regexp"
	"regexp/syntax"
	"unicode/utf8"
)

// A pattern is a compiled regular expression that can also tell whether a match
// at the end of what has arrived so far is final.
type pattern struct {
	*regexp.Regexp
	prog *syntax.Prog
}

// compile compiles an expression in which ^ and $ match at lines.
func compile(expr string) (*pattern, error) {
	if _, err := regexp.Compile(expr); err != nil {
		return nil, err // with the expression as the user wrote it
	}
	re, err := regexp.Compile("(?m)" + expr)
	if err != nil {
		return nil, err
	}
	parsed, err := syntax.Parse("(?m)"+expr, syntax.Perl)
	if err != nil {
		return nil, err
	}
	prog, err := syntax.Compile(parsed.Simplify())
	if err != nil {
		return nil, err
	}
	return &pattern{re, prog}, nil
}

// final reports whether the first match in text stays what it is whatever
// follows the text. It runs the expression's program over the text, all threads
// at once and the preferred ones first, as package regexp does. At the end of
// the text the match is final if no thread that is preferred to it waits for
// more.
func (p *pattern) final(text []byte) bool {
	run := threads{prog: p.prog, seen: make([]int, len(p.prog.Inst))}
	var prev rune = -1
	matched := false
	for at := 0; ; {
		next, size := rune(-1), 0
		if at < len(text) {
			next, size = utf8.DecodeRune(text[at:])
		}
		run.step++
		run.next = run.next[:0]
		run.stop, run.unknown = false, false
		run.before, run.after = prev, next
		for _, pc := range run.ready {
			run.follow(pc)
		}
		if !matched {
			run.follow(uint32(p.prog.Start)) // a match that begins here comes last
		}
		if run.unknown {
			return false // what follows decides
		}
		if run.stop {
			matched = true
		}
		if size == 0 {
			return matched && len(run.next) == 0
		}
		if matched && len(run.next) == 0 {
			return true
		}
		run.ready = run.ready[:0]
		for _, pc := range run.next {
			if inst := &p.prog.Inst[pc]; inst.MatchRune(next) {
				run.ready = append(run.ready, inst.Out)
			}
		}
		at, prev = at+size, next
	}
}

// threads are the places in a program at which a run is, at one place of the
// text.
type threads struct {
	prog          *syntax.Prog
	before, after rune     // around the place; -1 is the end of the text
	ready         []uint32 // to be followed from here, the preferred first
	next          []uint32 // that wait for a rune, the preferred first
	stop          bool     // a match was reached: whatever comes later is not preferred
	unknown       bool     // an assertion asks for the rune that follows the text
	seen          []int    // the step in which a place was last followed
	step          int
}

// follow runs a thread up to where it waits for a rune.
func (t *threads) follow(pc uint32) {
	if t.stop || t.unknown || t.seen[pc] == t.step {
		return
	}
	t.seen[pc] = t.step
	inst := &t.prog.Inst[pc]
	switch inst.Op {
	case syntax.InstAlt, syntax.InstAltMatch:
		t.follow(inst.Out)
		t.follow(inst.Arg)
	case syntax.InstCapture, syntax.InstNop:
		t.follow(inst.Out)
	case syntax.InstEmptyWidth:
		const looksAhead = syntax.EmptyEndLine | syntax.EmptyEndText | syntax.EmptyWordBoundary | syntax.EmptyNoWordBoundary
		asks := syntax.EmptyOp(inst.Arg)
		if t.after < 0 && asks&looksAhead != 0 {
			t.unknown = true
			return
		}
		if asks&^syntax.EmptyOpContext(t.before, t.after) == 0 {
			t.follow(inst.Out)
		}
	case syntax.InstMatch:
		t.stop = true
	case syntax.InstFail:
	default:
		t.next = append(t.next, pc)
	}
}
