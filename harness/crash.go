package harness

import (
	"bytes"
	"regexp"
)

// kernelFailed matches what a Linux kernel says when it, or the guest's memory,
// has failed. But for a panic the words have to stand where the kernel's log
// has them, behind its time: a program may say "Internal error: " of something
// else.
var kernelFailed = regexp.MustCompile(`Kernel panic - not syncing|\[ *\d+\.\d+\] (?:Oops: |Internal error: Oops|kernel BUG at |BUG: unable to handle |BUG: kernel NULL pointer |Unable to handle kernel |Out of memory: Killed process )`)

// kernelWords are in every line that kernelFailed matches. Looking for them
// first makes a flood of other lines cheap.
var kernelWords = [][]byte{
	[]byte("Kernel panic"), []byte("Oops: "), []byte("BUG"), []byte("Unable to handle"), []byte("Out of memory"),
}

// A Go program that dies prints a line that begins with one of the first, soon
// followed by the header of a goroutine's trace. A shell's prompt may precede it.
var (
	goDied  = regexp.MustCompile(`^(?:\S*[$#>] )?((?:panic|fatal error): .*)`)
	goTrace = regexp.MustCompile(`^goroutine \d+ .*\[`)
)

// crashDetector finds the signs of a crash in console text however it is split
// over reads.
type crashDetector struct {
	line  []byte // the line so far
	died  string // a Go program's last words, while its trace is awaited
	since int    // lines since then
}

const (
	longestLine = 4 << 10 // of a longer line only this much is looked at
	traceWithin = 20      // lines between a Go program's last words and its trace
)

// write takes the next text and returns the first line in it that shows a
// crash, or "".
func (d *crashDetector) write(text []byte) string {
	for len(text) > 0 {
		part, rest, whole := bytes.Cut(text, []byte{'\n'})
		d.line = append(d.line, part[:min(len(part), longestLine-len(d.line))]...)
		if !whole {
			return ""
		}
		found := d.check()
		d.line, text = d.line[:0], rest
		if found != "" {
			return found
		}
	}
	return ""
}

func (d *crashDetector) check() string {
	for _, words := range kernelWords {
		if bytes.Contains(d.line, words) && kernelFailed.Match(d.line) {
			return string(d.line)
		}
	}
	if bytes.Contains(d.line, []byte("panic: ")) || bytes.Contains(d.line, []byte("fatal error: ")) {
		if m := goDied.FindSubmatch(d.line); m != nil {
			d.died, d.since = string(m[1]), 0
			return ""
		}
	}
	if d.died == "" {
		return ""
	}
	if goTrace.Match(d.line) {
		return d.died
	}
	if d.since++; d.since > traceWithin {
		d.died = ""
	}
	return ""
}

// suspicious says whether the words of a crash have been seen, and what would prove it has not.
func (d *crashDetector) suspicious() bool { return d.died != "" }
