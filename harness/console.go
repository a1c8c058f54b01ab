package harness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"sync"
	"time"
)

// A Console is the log of everything a guest prints on its serial line, and the
// way to type into it. One goroutine always drains the line into the log,
// whether or not anybody waits for a pattern, because a guest whose console is
// not read stalls.
//
// In the log a line ends with "\n" also where the guest sent "\r\n". The last 16 MiB
// are kept in memory; the record's console.log has all of it.
type Console struct {
	mu   sync.Mutex
	more chan struct{} // closed and replaced when anything below changes

	text   []byte    // the log from offset base on
	base   int64     // bytes that were dropped from the front
	last   time.Time // when the newest byte came
	eof    bool      // the line has ended: no byte will follow
	crash  string    // the line by which the guest was seen to fail
	cr     bool      // a "\r" is held back until it is known whether "\n" follows
	record io.Writer // console.log
	detect crashDetector

	expectMu sync.Mutex // held for one Expect: two at once would have no order to assert
	cursor   int64      // where the next Expect begins

	typeMu sync.Mutex
	line   io.Writer // to the guest
}

const (
	keepConsole = 16 << 20 // bytes of log kept in memory
	overlap     = 16 << 10 // bytes before new ones that a pattern may reach back to
	settle      = 200 * time.Millisecond
)

func newConsole(line io.Writer, record io.Writer) *Console {
	return &Console{line: line, record: record, more: make(chan struct{})}
}

// drain reads the serial line until it ends.
func (c *Console) drain(line io.Reader) {
	buf := make([]byte, 64<<10)
	for {
		n, err := line.Read(buf)
		if n > 0 {
			c.append(buf[:n])
		}
		if err != nil {
			c.end()
			return
		}
	}
}

func (c *Console) append(p []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	from := len(c.text)
	for _, b := range p {
		if c.cr && b != '\n' {
			c.text = append(c.text, '\r')
		}
		if c.cr = b == '\r'; !c.cr {
			c.text = append(c.text, b)
		}
	}
	c.take(c.text[from:])
	if len(c.text) > 2*keepConsole {
		drop := len(c.text) - keepConsole
		c.base += int64(drop)
		c.text = append(c.text[:0:0], c.text[drop:]...)
	}
}

// take hands new text to the record and to the crash detector and wakes every
// waiter. The caller holds mu.
func (c *Console) take(text []byte) {
	c.last = time.Now()
	c.record.Write(text) // its failure must not stop the guest: the log in memory goes on
	if c.crash == "" {
		c.crash = c.detect.write(text)
	}
	c.wake()
}

func (c *Console) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cr {
		c.text = append(c.text, '\r')
		c.take([]byte{'\r'})
	}
	if c.crash == "" {
		c.crash = c.detect.write([]byte{'\n'}) // the last line has no end of its own
	}
	c.eof = true
	c.wake()
}

func (c *Console) wake() {
	close(c.more)
	c.more = make(chan struct{})
}

// A stopped console ends a wait with one of these.
var (
	errConsoleEnded = errors.New("the console has ended")
	errConsoleLost  = errors.New("console text was dropped before it was searched")
)

// Expect waits until the console shows text that matches pattern and returns
// the match and its submatches, as regexp.FindStringSubmatch does. ^ and $ match at
// lines. The search begins where the last successful Expect ended, so a
// sequence of calls asserts an order; text that arrived before the call counts.
//
// A match that more text could change, such as `from (\S+)` at the end of what has
// arrived so far, is taken only when its line is complete or the guest has
// been silent for 200 ms. A match spans at most 16 KiB. The place where a search
// begins counts as the start of a line.
//
// The wait ends with an error when ctx does, when the console ends, and at once
// when the guest shows a sign of having crashed (errors.Is(err, ErrGuest)).
func (c *Console) Expect(ctx context.Context, pattern string) ([]string, error) {
	re, err := regexp.Compile("(?m)" + pattern)
	if err != nil {
		return nil, fmt.Errorf("expect %q: %w", pattern, err)
	}
	c.expectMu.Lock()
	defer c.expectMu.Unlock()
	match, end, err := c.wait(ctx, re, c.cursor)
	if err != nil {
		return nil, fmt.Errorf("expect %q: %w", pattern, err)
	}
	c.cursor = end
	return match, nil
}

// wait searches the log from offset start on and returns the first match and
// the offset at which it ends.
func (c *Console) wait(ctx context.Context, re *regexp.Regexp, start int64) ([]string, int64, error) {
	from := start // no match begins before this offset
	for {
		now := c.snapshot(from)
		if now.lost > 0 {
			return nil, 0, fmt.Errorf("%w (%d bytes)", errConsoleLost, now.lost)
		}
		var quiet <-chan time.Time
		began := time.Now()
		if loc := re.FindSubmatchIndex(now.text); loc != nil {
			silent := time.Since(now.last)
			if now.eof || silent >= settle || stable(re, now.text, loc) {
				return submatches(now.text, loc), from + int64(loc[1]), nil
			}
			quiet = time.After(settle - silent)
		} else {
			if now.crash != "" {
				return nil, 0, fmt.Errorf("%w: %s", ErrGuest, now.crash)
			}
			if now.eof {
				return nil, 0, errConsoleEnded
			}
			from += searched(now.text)
			// A guest that prints byte by byte would have the overlap
			// searched for each of them. Searching for a fifth of
			// the time leaves the processor to the guest.
			if err := rest(ctx, 4*time.Since(began)); err != nil {
				return nil, 0, err
			}
		}
		select {
		case <-now.more:
		case <-quiet:
		case <-ctx.Done():
			return nil, 0, context.Cause(ctx)
		}
	}
}

func rest(ctx context.Context, d time.Duration) error {
	if d < 200*time.Microsecond {
		return nil
	}
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// consoleState is the log from an offset on, at one moment. Its text is never written again.
type consoleState struct {
	text  []byte
	lost  int64 // bytes from the offset on that are no longer kept; text follows them
	last  time.Time
	eof   bool
	crash string
	more  <-chan struct{} // closed when there is more to see
}

func (c *Console) snapshot(from int64) consoleState {
	c.mu.Lock()
	defer c.mu.Unlock()
	lost := max(0, c.base-from)
	return consoleState{
		text: c.text[from+lost-c.base:],
		lost: lost, last: c.last, eof: c.eof, crash: c.crash, more: c.more,
	}
}

// searched returns how much of a text without a match need not be searched
// again: all but the overlap, from the start of a line on so that ^ keeps its meaning.
func searched(text []byte) int64 {
	back := len(text) - overlap
	if back <= 0 {
		return 0
	}
	if nl := bytes.LastIndexByte(text[:back], '\n'); nl >= 0 {
		return int64(nl) + 1
	}
	return int64(back)
}

func submatches(text []byte, loc []int) []string {
	match := make([]string, len(loc)/2)
	for i := range match {
		if loc[2*i] >= 0 {
			match[i] = string(text[loc[2*i]:loc[2*i+1]])
		}
	}
	return match
}

// stable reports whether a match stays what it is whatever follows the text: its
// line is complete, or no kind of next byte changes it.
func stable(re *regexp.Regexp, text []byte, loc []int) bool {
	if bytes.IndexByte(text[loc[1]:], '\n') >= 0 || bytes.HasSuffix(text[loc[0]:loc[1]], []byte("\n")) {
		return true
	}
	begin := max(0, bytes.LastIndexByte(text[:loc[0]], '\n'))
	for _, next := range "a0 .-\n" {
		again := re.FindIndex(append(bytes.Clone(text[begin:]), byte(next)))
		if again == nil || again[0]+begin != loc[0] || again[1]+begin != loc[1] {
			return false
		}
	}
	return true
}

// Send types line and a carriage return, as a person would press Enter.
func (c *Console) Send(ctx context.Context, line string) error {
	return c.Type(ctx, []byte(line+"\r"))
}

// Type sends bytes to the guest as if typed, at the speed at which the guest
// takes them: a terminal that gets more than it can hold drops it without a
// word. After every few bytes Type waits for their echo, and where the guest
// echoes nothing, for 10 ms.
func (c *Console) Type(ctx context.Context, p []byte) error {
	const atOnce = 32
	c.typeMu.Lock()
	defer c.typeMu.Unlock()
	for len(p) > 0 {
		n := min(len(p), atOnce)
		before := c.length()
		if _, err := c.line.Write(p[:n]); err != nil {
			return fmt.Errorf("type into the console: %w", err)
		}
		if p = p[n:]; len(p) == 0 {
			break
		}
		echo := time.After(10 * time.Millisecond)
		for waiting := true; waiting; {
			now := c.snapshot(before)
			if now.eof {
				return fmt.Errorf("type into the console: %w", errConsoleEnded)
			}
			if now.lost > 0 || len(now.text) >= n {
				break
			}
			select {
			case <-now.more:
			case <-echo:
				waiting = false
			case <-ctx.Done():
				return fmt.Errorf("type into the console: %w", context.Cause(ctx))
			}
		}
	}
	return nil
}

// Follow writes the whole log from its first byte on to w, and what comes as
// it comes, until the console ends (nil), ctx ends, or w fails. A slow w
// does not hold up the guest; what it misses by being 16 MiB behind is replaced by a line that says so.
func (c *Console) Follow(ctx context.Context, w io.Writer) error {
	var at int64
	for {
		now := c.snapshot(at)
		if now.lost > 0 {
			if _, err := fmt.Fprintf(w, "\n[%d bytes of console left out: they came faster than they were read]\n", now.lost); err != nil {
				return err
			}
		}
		if len(now.text) > 0 {
			if _, err := w.Write(now.text); err != nil {
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

// length returns the offset at which the next byte of the log will be.
func (c *Console) length() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.base + int64(len(c.text))
}

// Text returns what is kept of the log.
func (c *Console) Text() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return string(c.text)
}

// Tail returns the last n lines of the log, without their line ends.
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
