package console

import (
	"errors"
	"io"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"guesthouse.example/harness/internal/crash"
	"guesthouse.example/harness/internal/guestfault"
	"guesthouse.example/harness/internal/termtext"
)

// ErrGuest is wrapped by every error whose cause is the guest, such as a crash. It is the same
// error as harness.ErrGuest.
var ErrGuest = guestfault.ErrGuest

// ErrEnded is wrapped by the error of a call that waits for the guest when the line has ended.
var ErrEnded = errors.New("the console has ended")

// A Console is the log of everything that a guest prints, and the way to type into the guest. It
// reads the guest's line all the time, because a guest stalls if its console is not read.
//
// The log holds the guest's bytes, except that "\r\n" is "\n". [Console.Follow] and
// [Options.Record] get the log. [Console.Expect], [Console.Text] and [Console.Tail] use its text,
// which is what a person would read on a terminal: it has no escape sequences, and where the guest
// prints over older text, as a progress bar does, the new text stands on a line of its own. The
// console keeps at least the last 16 MiB of each in memory.
//
// The methods of a Console may be called from any goroutine.
type Console struct {
	line          io.ReadWriter
	record        io.Writer
	crashComplete <-chan struct{} // Options.CrashComplete

	mu   sync.Mutex
	more chan struct{} // closed and replaced when a field below changes

	log    buffer          // what the guest printed
	heldCR bool            // a "\r" is not in the log yet, because "\n" may follow
	text   buffer          // what a person reads of the log
	filter termtext.Filter // makes the text of the log
	last   time.Time       // when the newest byte arrived
	ended  bool            // no byte will follow

	detect   *crash.Detector
	crash    string   // the line that shows the guest's crash
	warnings []string // the first keepWarnings lines that show a fault without a crash
	unkept   int      // the number of such lines that followed

	echoes echoes // of the lines that Send has typed

	expecting chan struct{} // holds a token while Expect runs: two concurrent calls would assert no order
	cursor    atomic.Int64  // where the next Expect begins; changed by the holder of the token
	rejects   rejects

	typing chan struct{} // holds a token while Send or Type runs, or HoldTyping holds typing

	crashed  chan struct{} // closed when the guest crashes
	done     chan struct{} // closed when the line has ended
	catching sync.Mutex    // one CatchUp at a time
	caughtUp chan struct{} // drain's answer to CatchUp
}

// Options are what [New] needs to know besides the line. The zero value works.
type Options struct {
	// Record gets the log as it arrives. The log has the guest's bytes, and a terminal that shows
	// them obeys the guest. If Record has a method Flush() error, the console calls it when the
	// line has ended. The console ignores errors of Record, because they must not stop the guest.
	Record io.Writer

	// Crashes match what the guest prints when it has crashed, in addition to the signs of Linux,
	// Go, Zephyr and others that the console knows. Each expression is matched against every line
	// of the text, without the shell's prompt if the line begins with one. Begin an expression with
	// ^, or a line that only mentions the crash matches too.
	Crashes []*regexp.Regexp

	// CrashComplete is a channel that the caller closes when the guest has printed everything about
	// its crash. Expect returns the crash only then, so that the log has the complete trace. If
	// CrashComplete is nil, Expect waits until the guest has been silent for 200 ms, but for at
	// most 2 s.
	CrashComplete <-chan struct{}

	// State is the state of another console of the same guest. The new console continues from it.
	State *State
}

// New returns the console of the guest at the other end of line, and starts to read the line. The
// console reads until Read fails; to end it, close the line. It calls Read and Write concurrently.
// Until the channel of [Console.Done] is closed, nobody else may read from the line, write to it or
// set its deadlines.
//
// Two abilities depend on the line. If the line has a working method SetWriteDeadline, as a net.Conn
// has, Send and Type end with their context even while the guest accepts no byte; on any other line
// they wait until Write returns. CatchUp needs a file descriptor and read deadlines.
func New(line io.ReadWriter, o Options) *Console {
	c := newConsole(line, o)
	go c.drain()
	return c
}

func newConsole(line io.ReadWriter, o Options) *Console {
	c := &Console{
		line: line, record: o.Record, crashComplete: o.CrashComplete,
		more: make(chan struct{}), detect: crash.New(o.Crashes),
		expecting: make(chan struct{}, 1), typing: make(chan struct{}, 1),
		crashed: make(chan struct{}), done: make(chan struct{}), caughtUp: make(chan struct{}),
	}
	if c.record == nil {
		c.record = io.Discard
	}
	if o.State != nil {
		c.restore(o.State)
	}
	return c
}

// Done returns a channel that is closed when the line has ended and its last byte is in the log.
func (c *Console) Done() <-chan struct{} { return c.done }

func (c *Console) append(p []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	log, text := len(c.log.bytes), len(c.text.bytes)
	c.log.bytes, c.heldCR = appendLines(c.log.bytes, p, c.heldCR)
	c.text.bytes = c.filter.Append(c.text.bytes, c.log.bytes[log:])
	c.publish(c.log.bytes[log:], c.text.bytes[text:])
	c.log.trim()
	c.text.trim()
}

// end appends the bytes that were held back, and marks the console as ended.
func (c *Console) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	log, text := len(c.log.bytes), len(c.text.bytes)
	if c.heldCR {
		c.log.bytes = append(c.log.bytes, '\r')
	}
	c.text.bytes = c.filter.End(c.filter.Append(c.text.bytes, c.log.bytes[log:]))
	c.publish(c.log.bytes[log:], c.text.bytes[text:])
	c.note(c.detect.End()) // the last line may have no end
	if f, ok := c.record.(interface{ Flush() error }); ok {
		f.Flush()
	}
	c.ended = true
	c.wake()
}

// publish hands what is new in the log to the record and what is new in the text to the crash
// detector, and wakes every waiter. The caller holds mu.
func (c *Console) publish(log, text []byte) {
	c.last = time.Now()
	c.record.Write(log)
	c.look(text)
	c.wake()
}

func (c *Console) wake() {
	close(c.more)
	c.more = make(chan struct{})
}

// A view is the log or the text from an offset on, at one moment. Its bytes are never overwritten.
type view struct {
	text  []byte
	lost  int64 // bytes after the offset and before text that are no longer kept
	last  time.Time
	ended bool
	crash string
	more  <-chan struct{} // closed when the console has changed

	echoes hidden // the parts of the text that Expect does not search
}

// logFrom returns the log from an offset on.
func (c *Console) logFrom(at int64) view {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.from(&c.log, at)
}

// textFrom returns the text from an offset on.
func (c *Console) textFrom(at int64) view {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.from(&c.text, at)
	now.echoes = c.echoes.hidden(&c.text, at+now.lost, time.Now())
	return now
}

// from returns a buffer's content from an offset on. The caller holds mu.
func (c *Console) from(b *buffer, at int64) view {
	text, lost := b.from(at)
	return view{text: text, lost: lost, last: c.last, ended: c.ended, crash: c.crash, more: c.more}
}

// Len returns the number of bytes that the log has ever had, including those that are no longer in memory.
func (c *Console) Len() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.log.end()
}

// Text returns the text that is in memory. It contains the echo of what was typed.
func (c *Console) Text() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return string(c.text.bytes)
}

// Tail returns the last n lines of the text, without their line ends.
func (c *Console) Tail(n int) []string {
	text := strings.TrimRight(c.Text(), "\n")
	if text == "" {
		return nil
	}
	lines := strings.Split(text, "\n")
	return lines[max(0, len(lines)-n):]
}
