package console

import (
	"regexp/syntax"
	"strings"
	"unicode/utf8"
)

const (
	nearLines = 500 // the newest lines that nearest looks at
	nearRunes = 4   // fewer equal characters are chance
)

// nearest returns the line that comes nearest to a match, and its part up to which the pattern agrees with it: the
// line with the most characters of the pattern one after the other, from the pattern's beginning on. It
// returns "" if no line has at least nearRunes of them.
func (p *pattern) nearest(lines []string) (line, agrees string) {
	most := nearRunes - 1
	for _, l := range lines[max(0, len(lines)-nearLines):] {
		if score, from, to := p.reach(l[:min(len(l), overlap)]); score > most {
			most, line, agrees = score, l, l[from:to]
		}
	}
	return line, agrees
}

// A run is a thread of a pattern's program that has not failed yet.
type run struct {
	runes int // characters that the pattern names, and the line has
	from  int // where the first of them is
}

// reach follows the program over a line from every position, and returns the most characters of the pattern that
// it has found before all threads failed, and the part of the line with them. What matches many
// characters, such as . or \w, does not count.
func (p *pattern) reach(line string) (score, from, to int) {
	ready := make(map[uint32]run)
	prev := rune(-1)
	for at := 0; ; {
		next, size := rune(-1), 0
		if at < len(line) {
			next, size = utf8.DecodeRuneInString(line[at:])
		}
		have := make(map[uint32]run)
		context := syntax.EmptyOpContext(prev, next)
		for pc, r := range ready {
			p.follow(have, pc, r, context)
		}
		p.follow(have, uint32(p.prog.Start), run{0, at}, context)
		if size == 0 {
			return score, from, to
		}
		clear(ready)
		at += size
		for pc, r := range have {
			inst := &p.prog.Inst[pc]
			if !inst.MatchRune(next) {
				continue
			}
			if names(inst) {
				if r.runes++; r.runes > score {
					score, from, to = r.runes, r.from, at
				}
			}
			if old, ok := ready[inst.Out]; !ok || old.runes < r.runes {
				ready[inst.Out] = r
			}
		}
		prev = next
	}
}

// follow adds the instructions that a run reaches without another character.
func (p *pattern) follow(have map[uint32]run, pc uint32, r run, context syntax.EmptyOp) {
	if old, ok := have[pc]; ok && old.runes >= r.runes {
		return
	}
	inst := &p.prog.Inst[pc]
	switch inst.Op {
	case syntax.InstMatch, syntax.InstFail:
		return
	}
	have[pc] = r
	switch inst.Op {
	case syntax.InstAlt, syntax.InstAltMatch:
		p.follow(have, inst.Out, r, context)
		p.follow(have, inst.Arg, r, context)
	case syntax.InstCapture, syntax.InstNop:
		p.follow(have, inst.Out, r, context)
	case syntax.InstEmptyWidth:
		if syntax.EmptyOp(inst.Arg)&^context == 0 {
			p.follow(have, inst.Out, r, context)
		}
	}
}

// names reports whether an instruction matches one character, in either case.
func names(inst *syntax.Inst) bool {
	return inst.Op == syntax.InstRune1 || inst.Op == syntax.InstRune && len(inst.Rune) == 1
}

// explainNearest describes the line that comes nearest to a match, if one does.
func (p *pattern) explainNearest(text string) string {
	line, agrees := p.nearest(strings.Split(text, "\n"))
	if line == "" {
		return ""
	}
	return "\n\tthe line that comes nearest is " + quoteLine(withoutEchoes(line)) + ": the pattern matches it up to " + quoteLine(withoutEchoes(agrees))
}
