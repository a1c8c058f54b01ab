package harness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"guesthouse.example/harness/internal/until"
)

// A Console is the log of everything a guest prints on its serial line, and the
// way to type into it. One goroutine always drains the line into the log,
// whether or not anybody waits for a pattern, because a guest whose console is
// not read stalls.
//
// In the log a line ends with "\n" also where the guest sent "\r\n". At least
// the last 16 MiB are kept in memory; the record's console.log has all of it.
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

	expecting chan struct{} // holds one token while an Expect runs: two at once would have no order to assert
	cursor    int64         // where the next Expect begins

	typing chan struct{} // holds one token while somebody types
	line   io.Writer     // to the guest

	drained chan struct{} // answers catchUp; closed at the line's end
}

const keepConsole = 16 << 20 // bytes of log kept in memory

func newConsole(line, record io.Writer) *Console {
	return &Console{line: line, record: record, more: make(chan struct{}),
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
	Text []byte `json:"text"`
	Base int64  `json:"base,omitempty"` // bytes before Text that are not kept
	CR   bool   `json:"cr,omitempty"`   // a "\r" is held back
}

func (c *Console) save() savedConsole {
	c.mu.Lock()
	defer c.mu.Unlock()
	return savedConsole{Text: bytes.Clone(c.text), Base: c.base, CR: c.cr}
}

// begin puts what was saved at the start of an empty log.
func (c *Console) begin(s savedConsole) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.text, c.base, c.cr = bytes.Clone(s.Text), s.Base, s.CR
	c.take(c.text)
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

// consoleState is the log from an offset on, at one moment. Its text is never
// written again.
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

// Send types line and a carriage return, as a person would press Enter.
func (c *Console) Send(ctx context.Context, line string) error {
	return c.Type(ctx, []byte(line+"\r"))
}

// Type sends bytes to the guest as if typed, a few at once, each time waiting
// for their echo, and where the guest echoes nothing, for 10 ms. The echo says
// that the guest's terminal has them, not that a program has read them: a
// terminal holds some thousand bytes for a program that is busy, and a line of
// at most 4095, so whoever types much waits for the answers.
//
// After the end of the console it fails, and so it does when ctx ends, also
// while the guest takes nothing from its serial port. The error says how many
// bytes were sent. Those bytes stay before whatever is typed next; a terminal
// drops an unfinished line at Ctrl-U ("\x15").
func (c *Console) Type(ctx context.Context, p []byte) error {
	select {
	case c.typing <- struct{}{}:
		defer func() { <-c.typing }()
	case <-ctx.Done():
		return fmt.Errorf("type into the console: %w", context.Cause(ctx))
	}
	if n, err := c.typeAll(ctx, p); err != nil {
		return fmt.Errorf("type into the console: %d of %d bytes were sent: %w", n, len(p), err)
	}
	return nil
}

// typeAll returns how many bytes it sent. The caller has the token.
func (c *Console) typeAll(ctx context.Context, p []byte) (sent int, err error) {
	const atOnce = 32
	for sent < len(p) {
		if ctx.Err() != nil {
			return sent, context.Cause(ctx)
		}
		before := c.length()
		n, err := until.Write(ctx, c.line, p[sent:min(len(p), sent+atOnce)])
		sent += n
		switch {
		case err != nil && ctx.Err() != nil:
			return sent, fmt.Errorf("the guest's serial port takes no more: %w", err)
		case err != nil:
			return sent, err
		}
		if err := c.waitEcho(ctx, before, n); err != nil {
			return sent, err
		}
	}
	return sent, nil
}

// waitEcho waits until n bytes have come after an offset, at most 10 ms.
func (c *Console) waitEcho(ctx context.Context, from int64, n int) error {
	late := time.After(10 * time.Millisecond)
	for {
		now := c.snapshot(from)
		if now.lost > 0 || len(now.text) >= n {
			return nil
		}
		if now.eof {
			return errConsoleEnded
		}
		select {
		case <-now.more:
		case <-late:
			return nil
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
		now := c.snapshot(at)
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
