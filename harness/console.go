package harness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"guesthouse.example/harness/internal/crash"
	"guesthouse.example/harness/internal/termtext"
	"guesthouse.example/internal/printable"
)

// A Console is the log of everything a guest prints on its serial line, and the
// way to type into it. One goroutine always drains the line into the log,
// whether or not anybody waits for a pattern, because a guest whose console is
// not read stalls.
//
// The log has the guest's bytes; only "\r\n" is "\n" there. Follow writes it, and so does the
// record's console.log. Expect, Text and Tail have the text that a person would read on a
// terminal: without escape sequences, and where the guest prints over older text, as a
// progress bar does, what is printed then has a line of its own (package termtext). At least
// the last 16 MiB of both are kept in memory.
type Console struct {
	mu   sync.Mutex
	more chan struct{} // closed and replaced when anything below changes

	log    kept            // what the guest printed
	cr     bool            // a "\r" is held back from the log until it is known whether "\n" follows
	text   kept            // what a person reads of it
	filter termtext.Filter // makes text of the log
	last   time.Time       // when the newest byte came
	eof    bool            // the line has ended: no byte will follow
	record io.Writer       // console.log

	detect   *crash.Detector
	crash    string   // the line by which the guest was seen to fail
	warnings []string // of those that it has shown before, at most keepWarnings
	unkept   int      // the others

	crashed chan struct{}   // closed when the guest was seen to fail
	rest    <-chan struct{} // closed when the rest of what it says about that is in the log; nil where nobody collects it

	echoes echoes // of what Send types, in the text

	expecting chan struct{} // holds one token while an Expect runs: two at once would have no order to assert
	cursor    int64         // where the next Expect begins

	typing chan struct{} // holds one token while somebody types
	line   io.Writer     // to the guest

	drained chan struct{} // answers catchUp; closed at the line's end
}

const keepConsole = 16 << 20 // bytes of the log, and of its text, that are kept in memory

// kept is a text of which only the end is kept. Its offsets count what was dropped too. What
// was appended is never written again.
type kept struct {
	bytes []byte
	base  int64 // bytes that were dropped from the front
}

// end returns the offset at which the next byte will be.
func (k *kept) end() int64 { return k.base + int64(len(k.bytes)) }

// from returns what is kept from an offset on, and how many bytes before it are not.
func (k *kept) from(at int64) (text []byte, lost int64) {
	lost = max(0, k.base-at)
	return k.bytes[at+lost-k.base:], lost
}

// trim drops what need not be kept: whole lines, where they are not long.
func (k *kept) trim() {
	if len(k.bytes) <= 2*keepConsole {
		return
	}
	drop := len(k.bytes) - keepConsole
	if nl := bytes.LastIndexByte(k.bytes[drop-overlap:drop], '\n'); nl >= 0 {
		drop += nl + 1 - overlap
	}
	k.base += int64(drop)
	k.bytes = bytes.Clone(k.bytes[drop:])
}

func newConsole(line, record io.Writer) *Console {
	return &Console{line: line, record: record, more: make(chan struct{}), crashed: make(chan struct{}),
		detect:    crash.New(nil),
		expecting: make(chan struct{}, 1), typing: make(chan struct{}, 1), drained: make(chan struct{})}
}

// drain reads the serial line until it ends.
func (c *Console) drain(line net.Conn) {
	buf := make([]byte, 64<<10)
	for {
		n, err := line.Read(buf)
		if n > 0 {
			c.append(buf[:n])
		}
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			line.SetReadDeadline(time.Time{})
			c.drainNow(line, buf)
			c.drained <- struct{}{}
		case err != nil:
			c.end()
			close(c.drained)
			return
		}
	}
}

// drainNow reads what the line holds and does not wait for more.
func (c *Console) drainNow(line net.Conn, buf []byte) {
	raw, err := line.(syscall.Conn).SyscallConn()
	if err != nil {
		return // closed: the next Read says so
	}
	raw.Read(func(fd uintptr) bool {
		for {
			n, err := unix.Read(int(fd), buf)
			if n > 0 {
				c.append(buf[:n])
			} else if !errors.Is(err, unix.EINTR) {
				return true
			}
		}
	})
}

// catchUp returns when every byte that was on the serial line at the time of the
// call is in the log. One call at a time.
func (c *Console) catchUp(line net.Conn) {
	line.SetReadDeadline(time.Unix(1, 0)) // makes drain look up
	<-c.drained
}

// savedConsole is a console as a template keeps it.
type savedConsole struct {
	Log      []byte          `json:"log"`
	LogBase  int64           `json:"log_base,omitempty"` // bytes before Log that are not kept
	CR       bool            `json:"cr,omitempty"`       // a "\r" is held back
	Text     []byte          `json:"text"`
	TextBase int64           `json:"text_base,omitempty"`
	Filter   termtext.Filter `json:"filter"`
	Echoes   []span          `json:"echoes,omitempty"`
}

func (c *Console) save() savedConsole {
	c.mu.Lock()
	defer c.mu.Unlock()
	filter := c.filter
	filter.Held = bytes.Clone(filter.Held)
	c.echoes.look(&c.text)
	return savedConsole{
		Log: bytes.Clone(c.log.bytes), LogBase: c.log.base, CR: c.cr,
		Text: bytes.Clone(c.text.bytes), TextBase: c.text.base, Filter: filter,
		Echoes: slices.Clone(c.echoes.found),
	}
}

// begin puts what was saved at the start of an empty console.
func (c *Console) begin(s savedConsole) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.log, c.cr = kept{bytes.Clone(s.Log), s.LogBase}, s.CR
	c.text, c.filter = kept{bytes.Clone(s.Text), s.TextBase}, s.Filter
	c.filter.Held = bytes.Clone(s.Filter.Held)
	c.echoes.found = slices.Clone(s.Echoes)
	c.take(c.log.bytes, c.text.bytes)
}

func (c *Console) append(p []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	log, text := len(c.log.bytes), len(c.text.bytes)
	c.log.bytes, c.cr = appendLines(c.log.bytes, p, c.cr)
	c.text.bytes = c.filter.Append(c.text.bytes, c.log.bytes[log:])
	c.take(c.log.bytes[log:], c.text.bytes[text:])
	c.log.trim()
	c.text.trim()
}

// appendLines appends what the guest sent to a log in which "\r\n" is "\n". A "\r" at its end is
// held back: cr says that there is one, before and after.
func appendLines(log, p []byte, cr bool) ([]byte, bool) {
	if cr && len(p) > 0 && p[0] != '\n' {
		log = append(log, '\r')
	}
	for len(p) > 0 {
		at := bytes.IndexByte(p, '\r')
		if at < 0 {
			return append(log, p...), false
		}
		log, p = append(log, p[:at]...), p[at+1:]
		if len(p) == 0 {
			return log, true
		}
		if p[0] != '\n' {
			log = append(log, '\r')
		}
	}
	return log, cr
}

// take hands what is new in the log to the record, and the text of it to the crash
// detector, and wakes every waiter. The caller holds mu.
func (c *Console) take(log, text []byte) {
	c.last = time.Now()
	c.record.Write(log) // its failure must not stop the guest: the log in memory goes on
	c.look(text)
	c.wake()
}

// look looks for signs of a crash in new text. The caller holds mu.
func (c *Console) look(text []byte) {
	if c.crash != "" {
		return
	}
	c.note(c.detect.Write(text))
}

// note keeps the signs that were found, up to a crash. The caller holds mu.
func (c *Console) note(found []crash.Found) {
	for _, f := range found {
		switch {
		case c.crash != "":
			return
		case f.Sign.Severity == crash.Crash:
			c.crash = f.Line
			close(c.crashed)
			return
		case len(c.warnings) < keepWarnings:
			c.warnings = append(c.warnings, f.Line)
		default:
			c.unkept++
		}
	}
}

// lookFor has the console look for a user's own signs of a crash too, also in what it holds already.
func (c *Console) lookFor(own []*regexp.Regexp) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.detect, c.warnings, c.unkept = crash.New(own), nil, 0
	c.look(c.text.bytes)
}

// keepWarnings bounds how many warnings are kept. The first ones tell most.
const keepWarnings = 10

// Warnings returns the lines by which the guest, its kernel or one of its programs was seen to be at
// fault without having crashed: a data race, a report of a sanitizer, a kernel's warning. Of more than
// 10 the last line says how many more there were.
func (c *Console) Warnings() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	warnings := slices.Clone(c.warnings)
	if c.unkept > 0 {
		warnings = append(warnings, fmt.Sprintf("and %d more", c.unkept))
	}
	return warnings
}

// suspicious says whether the newest text may turn out to be the begin of a crash.
func (c *Console) suspicious() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.crash == "" && c.detect.Suspicious()
}

// awaitRest waits until all that the guest says about its crash is in the log, or until ctx ends.
func (c *Console) awaitRest(ctx context.Context) {
	if c.rest == nil {
		return
	}
	select {
	case <-c.rest:
	case <-ctx.Done():
	}
}

func (c *Console) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	log, text := len(c.log.bytes), len(c.text.bytes)
	if c.cr {
		c.log.bytes = append(c.log.bytes, '\r')
	}
	c.text.bytes = c.filter.End(c.filter.Append(c.text.bytes, c.log.bytes[log:]))
	c.take(c.log.bytes[log:], c.text.bytes[text:])
	c.note(c.detect.End()) // the last line has no end of its own
	if safe, ok := c.record.(*printable.Writer); ok {
		safe.Flush()
	}
	c.eof = true
	c.wake()
}

func (c *Console) wake() {
	close(c.more)
	c.more = make(chan struct{})
}

// consoleState is the log, or its text, from an offset on, at one moment. It is never
// written again.
type consoleState struct {
	text  []byte
	lost  int64 // bytes from the offset on that are no longer kept; text follows them
	last  time.Time
	eof   bool
	crash string
	more  <-chan struct{} // closed when there is more to see

	echoes hidden // what of the text Expect does not search
}

// logFrom returns the log from an offset on.
func (c *Console) logFrom(at int64) consoleState {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.from(&c.log, at)
}

// textFrom returns the log's text from an offset on.
func (c *Console) textFrom(at int64) consoleState {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.from(&c.text, at)
	now.echoes = c.echoes.hidden(&c.text, at+now.lost, time.Now())
	return now
}

// from returns what is kept from an offset on. The caller holds mu.
func (c *Console) from(what *kept, at int64) consoleState {
	text, lost := what.from(at)
	return consoleState{text: text, lost: lost, last: c.last, eof: c.eof, crash: c.crash, more: c.more}
}

// awaitByte waits until the guest has printed a first byte.
func (c *Console) awaitByte(ctx context.Context) error {
	for {
		now := c.logFrom(0)
		switch {
		case len(now.text) > 0 || now.lost > 0:
			return nil
		case now.eof:
			return errConsoleEnded
		}
		select {
		case <-now.more:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Follow writes the whole log from its first byte on to w, and what comes as it
// comes, until the console ends (nil), ctx ends, or w fails. A slow w does not
// hold up the guest; what it misses by being 16 MiB behind is replaced by a
// line that says so. When ctx ends, a Write of w that is under way has a second
// more; Follow then returns, and leaves a Write behind that still blocks.
func (c *Console) Follow(ctx context.Context, w io.Writer) error {
	var at int64
	for {
		now := c.logFrom(at)
		if now.lost > 0 {
			text := fmt.Sprintf("\n[%d bytes of console left out: they came faster than they were read]\n", now.lost)
			if err := writeOrLeave(ctx, w, []byte(text)); err != nil {
				return err
			}
		}
		if len(now.text) > 0 {
			if err := writeOrLeave(ctx, w, now.text); err != nil {
				return err
			}
			at += now.lost + int64(len(now.text))
			continue
		}
		if now.eof {
			return nil
		}
		select {
		case <-now.more:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// leaveAfter is how long a write that is under way at the end of its context
// may still take.
const leaveAfter = time.Second

// writeOrLeave writes text, which is never changed, and leaves a write behind
// that does not end soon after ctx.
func writeOrLeave(ctx context.Context, w io.Writer, text []byte) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	wrote := make(chan error, 1)
	go func() {
		_, err := w.Write(text)
		wrote <- err
	}()
	select {
	case err := <-wrote:
		return err
	case <-ctx.Done():
	}
	select {
	case err := <-wrote:
		return err
	case <-time.After(leaveAfter):
		return context.Cause(ctx)
	}
}

// length returns the offset at which the next byte of the log will be.
func (c *Console) length() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.log.end()
}

// Text returns what is kept of the text that the guest has shown, with the echo of what was typed.
func (c *Console) Text() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return string(c.text.bytes)
}

// Tail returns the last n lines of that text, without their line ends.
func (c *Console) Tail(n int) []string {
	text := strings.TrimRight(c.Text(), "\n")
	if text == "" {
		return nil
	}
	lines := strings.Split(text, "\n")
	return lines[max(0, len(lines)-n):]
}

// Crash returns the line by which the guest was seen to have failed, or "".
func (c *Console) Crash() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.crash
}
