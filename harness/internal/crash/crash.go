// Package crash finds on a guest's console what kernels, runtimes and RTOSes print when they fail.
// Its table of signs says what each of them prints, where on a line, and how severe it is.
//
// The package reads the text that a person sees, without escape sequences; see package termtext. It
// finds a sign at the start of a line, behind a shell's prompt, and behind the time that a kernel
// prints. A sign may also stand behind the unfinished line of a program; the package then finds it only
// if the following lines prove it.
//
// A guest may therefore log text from the network: inside a line of the log, no text is a sign. If the
// guest logs such text with its line ends, a client can make it print any sign.
package crash

import (
	"bytes"
	"errors"
	"regexp"
)

// A Severity says what a sign means for the guest.
type Severity int

const (
	Warning Severity = iota // a fault that the guest survives
	Crash                   // the guest, or the program that it runs, has failed
)

// A Found is a sign that a Detector has found.
type Found struct {
	Sign *Sign
	Line string // the line with the sign, without a prompt or other text before it
}

// A Detector finds signs in the text of a console. What it finds does not depend on how the text is
// split over calls of Write.
type Detector struct {
	own []*regexp.Regexp

	line    []byte // the unfinished line
	checked bool   // the unfinished line was checked: a decompressor that halts does not finish its line
	blank   bool   // the line before was empty; lines of the kernel do not count

	// The message of a Go panic or fatal error, while the detector waits for the header of a
	// goroutine's trace and then for the first line of the trace.
	message Found
	since   int  // lines since the message
	inTrace bool // the header of the trace was found

	unproven Found // a line of the kernel behind other text, while the detector waits for the next line
}

const (
	maxTried    = 4       // places inside a line that behindText examines
	maxLine     = 4 << 10 // bytes; the rest of a longer line is ignored
	traceWithin = 1000    // lines from the start of a Go message, which may have many lines, to its trace
)

// New returns a detector for the table of signs and for the user's own expressions. It matches the
// expressions against each line, without a prompt.
func New(own []*regexp.Regexp) *Detector { return &Detector{own: own} }

// Write takes the next text and returns the signs that it completes.
func (d *Detector) Write(text []byte) (found []Found) {
	for len(text) > 0 {
		part, rest, whole := bytes.Cut(text, []byte{'\n'})
		d.line = append(d.line, part[:min(len(part), maxLine-len(d.line))]...)
		switch {
		case whole && d.checked:
			d.checked, d.blank = false, false
		case whole:
			found = append(found, d.check(d.line)...)
		case !d.checked && bytes.Equal(bytes.TrimSpace(d.line), halted):
			d.checked = true
			return append(found, d.check(d.line)...)
		default:
			return found
		}
		d.line, text = d.line[:0], rest
	}
	return found
}

// End returns the signs in an unfinished line and in an unfinished trace.
func (d *Detector) End() []Found {
	found := d.Write([]byte{'\n'})
	if d.inTrace {
		found = append(found, d.message)
		d.message, d.inTrace = Found{}, false
	}
	return found
}

// Suspicious reports whether the detector has found the message of a Go panic or fatal error and waits
// for its trace.
func (d *Detector) Suspicious() bool { return d.message.Sign != nil }

// check returns the signs that a complete line completes.
func (d *Detector) check(line []byte) (found []Found) {
	stampEnd := stamp(line)
	stamped := stampEnd > 0
	if d.unproven.Sign != nil {
		if stamped {
			found = append(found, d.unproven)
		}
		d.unproven = Found{}
	}
	if d.message.Sign != nil {
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

// follow looks in a later line for the proof that a Go message is a crash. The proof is the header of a
// goroutine's trace behind an empty line. A trace that begins in runtime/debug.Stack is no proof, because
// the program has logged its stack and goes on.
func (d *Detector) follow(line []byte, stamped bool) (Found, bool) {
	message := d.message
	switch d.since++; {
	case d.inTrace:
		d.message, d.inTrace = Found{}, false
		return message, !bytes.HasPrefix(line, logged)
	case d.blank && bytes.HasPrefix(line, runtimeStack):
		d.message = Found{}
		return message, true
	case d.blank && bytes.HasPrefix(line, goroutine) && header.Match(line):
		d.inTrace = true
	case d.since > traceWithin:
		d.message = Found{}
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

// sign returns the sign on a line if it needs no proof. It remembers a sign that needs one.
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
		if s.traced {
			d.message, d.since, d.inTrace = Found{s, string(rest)}, 0, false
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

// behindText remembers a sign behind the text of a program that has not finished its line. It ignores
// log records, which are finished lines. It examines few places in a line, so that no guest can make the
// search slow.
func (d *Detector) behindText(line []byte, from int) {
	stamps, begin := 0, min(from+1, len(line))
	if bytes.IndexByte(line[begin:], '[') < 0 { // cheaper than a search from the end
		stamps = maxTried
	}
	for end := len(line); stamps < maxTried; { // from the end, because the last stamp begins the kernel's line
		at := bytes.LastIndexByte(line[begin:end], '[') + begin
		if at < begin {
			break
		}
		end = at
		if n := stamp(line[at:]); n > 0 {
			stamps++
			if s := stampedSigns.find(line[at+n:]); s != nil {
				d.unproven = Found{s, string(line[at:])}
				return
			}
		}
	}
	tried := 0
	for at := from; tried < maxTried; at++ { // colons are rare, so this search is cheap
		i := bytes.IndexByte(line[at:], ':')
		if i < 0 {
			return
		}
		if at += i; at == 0 || line[at-1] != 'c' && line[at-1] != 'r' {
			continue
		}
		for _, message := range goMessages {
			begin := at + 1 - len(message)
			if begin <= 0 || !bytes.HasSuffix(line[:at+1], message) || len(bytes.TrimSpace(line[:begin])) == 0 {
				continue
			}
			tried++
			if s := plainSigns.find(line[begin:]); s != nil && !record.Match(line) {
				d.message, d.since, d.inTrace = Found{s, string(line[begin:])}, 0, false
				return
			}
		}
	}
}

// goMessages begin a Go message that may stand behind other text.
var goMessages = [][]byte{[]byte("panic:"), []byte("fatal error:")}

// record matches the start of a log record: of Zephyr, of Go's packages log and slog, or in JSON.
var record = regexp.MustCompile(`^(?:\[[\d:.,]+\] <|<(?:err|wrn|inf|dbg)> |\d{4}[/-]\d\d[/-]\d\d[ T]|time=|level=|\{")`)

// Compile compiles a user's pattern for New. It matches at the start of a line. Compile refuses a pattern that
// matches every line.
func Compile(expr string) (*regexp.Regexp, error) {
	if _, err := regexp.Compile(expr); err != nil {
		return nil, err // this error quotes the expression as the user wrote it
	}
	re, err := regexp.Compile("^(?:" + expr + ")")
	if err == nil && re.MatchString("") {
		err = errors.New("it matches every line: write what the guest prints only when it crashes")
	}
	return re, err
}
