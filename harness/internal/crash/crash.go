// Package crash finds on a guest's console what kernels, runtimes and RTOSes print when they
// fail. Its table of signs says what they print, where on a line, and how bad it is.
//
// It reads the text that a person sees, without escape sequences (package termtext). A sign stands
// at the start of a line, behind a shell's prompt or behind the kernel's time. Behind other text,
// that of a program which has not finished its line, what follows must prove it. So a text that
// somebody sends to a guest, and that the guest logs inside a line, is no sign whatever it says.
// A guest that prints such a text with its line ends as they are can be made to print any sign.
package crash

import (
	"bytes"
	"regexp"
)

// A Severity says what a sign means for the guest.
type Severity int

const (
	Warning Severity = iota // something is wrong, and the guest goes on
	Crash                   // the guest, or the program that it is for, is lost
)

// A Found sign.
type Found struct {
	Sign *Sign
	Line string // what was said, without a prompt or other text before it
}

// A Detector finds signs in console text however it is split over reads.
type Detector struct {
	own []*regexp.Regexp

	line  []byte // so far
	early bool   // it was looked at already: a decompressor halts without an end of its line
	blank bool   // the line before was empty; lines of the kernel do not count

	// A Go program's last words, while the header of a goroutine's trace is awaited, and then
	// the trace's first line.
	words      Found
	since      int // lines since then
	inTrace    bool
	unfinished Found // a kernel's line behind text without an end, while the next one is awaited
}

const (
	mostTried   = 4       // of what looks like a sign's begin in the middle of a line
	longestLine = 4 << 10 // of a longer line only this much is looked at
	traceWithin = 1000    // lines between a Go program's last words, which may be as long, and its trace
)

// New returns a detector that knows the table's signs, and crashes of the user's own: expressions
// that are matched where a sign at the start of a line is.
func New(own []*regexp.Regexp) *Detector { return &Detector{own: own} }

// Write takes the next text and returns the signs in the lines that it ends.
func (d *Detector) Write(text []byte) (found []Found) {
	for len(text) > 0 {
		part, rest, whole := bytes.Cut(text, []byte{'\n'})
		d.line = append(d.line, part[:min(len(part), longestLine-len(d.line))]...)
		switch {
		case whole && d.early:
			d.early, d.blank = false, false
		case whole:
			found = append(found, d.check(d.line)...)
		case !d.early && bytes.Equal(bytes.TrimSpace(d.line), halted):
			d.early = true
			return append(found, d.check(d.line)...)
		default:
			return found
		}
		d.line, text = d.line[:0], rest
	}
	return found
}

// End returns the signs in what has no end of its own.
func (d *Detector) End() []Found {
	found := d.Write([]byte{'\n'})
	if d.inTrace {
		found = append(found, d.words)
		d.words, d.inTrace = Found{}, false
	}
	return found
}

// Suspicious says whether the words of a crash have been seen, and not yet what proves it.
func (d *Detector) Suspicious() bool { return d.words.Sign != nil }

// check looks at a whole line.
func (d *Detector) check(line []byte) (found []Found) {
	stampEnd := stamp(line)
	stamped := stampEnd > 0
	if d.unfinished.Sign != nil {
		if stamped {
			found = append(found, d.unfinished)
		}
		d.unfinished = Found{}
	}
	if d.words.Sign != nil {
		if f, ok := d.follow(line, stamped); ok {
			found = append(found, f)
		}
	}
	if f, ok := d.sign(line, stampEnd); ok {
		found = append(found, f)
	}
	if !stamped {
		d.blank = len(line) == 0
	}
	return found
}

// follow looks at a line after a Go program's last words for what proves them: an empty line and the
// header of a goroutine's trace, which is not that of a stack that the program itself logs.
func (d *Detector) follow(line []byte, stamped bool) (Found, bool) {
	words := d.words
	switch d.since++; {
	case d.inTrace:
		d.words, d.inTrace = Found{}, false
		return words, !bytes.HasPrefix(line, logged)
	case d.blank && bytes.HasPrefix(line, runtimeStack):
		d.words = Found{}
		return words, true
	case d.blank && bytes.HasPrefix(line, goroutine) && header.Match(line):
		d.inTrace = true
	case d.since > traceWithin:
		d.words = Found{}
	}
	return Found{}, false
}

var (
	halted       = []byte("-- System halted")
	goroutine    = []byte("goroutine ")
	runtimeStack = []byte("runtime stack:")
	logged       = []byte("runtime/debug.Stack(")
	header       = regexp.MustCompile(`^goroutine \d+ .*\[.*\].*:$`)
)

// sign returns the sign that stands on a line by itself, and notes one that what follows must prove.
func (d *Detector) sign(line []byte, stampEnd int) (Found, bool) {
	if len(line) == 0 {
		return Found{}, false
	}
	rest := line
	if n := prompt(line); n > 0 {
		rest = line[n:]
		stampEnd = stamp(rest)
	}
	if stampEnd > 0 {
		if s := stampedSigns.find(rest[stampEnd:]); s != nil {
			return Found{s, string(rest)}, true
		}
	}
	if s := plainSigns.find(rest); s != nil {
		if s.trace {
			d.words, d.since, d.inTrace = Found{s, string(rest)}, 0, false
			return Found{}, false
		}
		return Found{s, string(rest)}, true
	}
	if n := rtosPrefix(rest); n > 0 {
		if s := rtosSigns.find(rest[n:]); s != nil {
			return Found{s, string(rest)}, true
		}
	}
	for _, re := range d.own {
		if re.Match(rest) {
			return Found{&own, string(rest)}, true
		}
	}
	d.behindText(line, len(line)-len(rest))
	return Found{}, false
}

// behindText notes a sign behind the text of a line without an end. A log record has one. Of what may
// be one it looks at a few, so that no guest can make its lines costly.
func (d *Detector) behindText(line []byte, from int) {
	stamps, begin := 0, min(from+1, len(line))
	if bytes.IndexByte(line[begin:], '[') < 0 { // far cheaper than looking from the end
		stamps = mostTried
	}
	for end := len(line); stamps < mostTried; { // the kernel's line is the last
		at := bytes.LastIndexByte(line[begin:end], '[') + begin
		if at < begin {
			break
		}
		end = at
		if n := stamp(line[at:]); n > 0 {
			stamps++
			if s := stampedSigns.find(line[at+n:]); s != nil {
				d.unfinished = Found{s, string(line[at:])}
				return
			}
		}
	}
	tried := 0
	for at := from; tried < mostTried; at++ { // a colon is rare, so that looking for it costs little
		i := bytes.IndexByte(line[at:], ':')
		if i < 0 {
			return
		}
		if at += i; at == 0 || line[at-1] != 'c' && line[at-1] != 'r' {
			continue
		}
		for _, words := range goWords {
			begin := at + 1 - len(words)
			if begin <= 0 || !bytes.HasSuffix(line[:at+1], words) || len(bytes.TrimSpace(line[:begin])) == 0 {
				continue
			}
			tried++
			if s := plainSigns.find(line[begin:]); s != nil && !record.Match(line) {
				d.words, d.since, d.inTrace = Found{s, string(line[begin:])}, 0, false
				return
			}
		}
	}
}

// goWords begin a Go program's last words also behind other text.
var goWords = [][]byte{[]byte("panic:"), []byte("fatal error:")}

// record matches log records, which are whole lines: of Zephyr, of Go's packages log and slog, and of
// whatever logs in JSON.
var record = regexp.MustCompile(`^(?:\[[\d:.,]+\] <|<(?:err|wrn|inf|dbg)> |\d{4}[/-]\d\d[/-]\d\d[ T]|time=|level=|\{")`)
