package console

import (
	"regexp"
	"regexp/syntax"
	"unicode/utf8"
)

// A pattern is a compiled regular expression that can also tell whether a match is final.
type pattern struct {
	*regexp.Regexp
	prog *syntax.Prog
}

// compile compiles an expression in which ^ and $ match at the start and end of a line.
func compile(expr string) (*pattern, error) {
	if _, err := regexp.Compile(expr); err != nil {
		return nil, err // this error quotes the expression as the caller wrote it
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

// final reports whether the first match in text stays the same if more text follows. As package regexp
// does, it runs all threads of the expression's program in lockstep over the text, in order of
// preference. The match is final if no thread that is preferred to the match waits for another rune at
// the end of the text.
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
			run.follow(uint32(p.prog.Start)) // a match that begins later is preferred less
		}
		if run.unknown {
			return false // the next rune decides
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

// threads are the instructions of a program that a run has reached at one position in the text.
type threads struct {
	prog          *syntax.Prog
	before, after rune     // around the position; -1 is none
	ready         []uint32 // to follow from here, in order of preference
	next          []uint32 // waiting for a rune, in order of preference
	stop          bool     // a thread has matched, and the threads after it are preferred less
	unknown       bool     // an assertion depends on the rune that follows the text
	seen          []int    // the step in which an instruction was last followed
	step          int
}

// follow runs a thread until it waits for a rune.
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
