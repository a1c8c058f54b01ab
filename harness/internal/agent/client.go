// Package agent is the host's end of the line to the guest's agent, which runs in the guest's
// init. A [Client] asks the agent for statistics, runs commands, quiesces the guest for a save and
// reseeds it after a restore. It also records what the guest reports without a request: events, the
// reason of a power-off, and how the guest's program ended.
//
// Package vm has one Client for each machine. It adds what a Client cannot know: whether the guest has
// opened the port at all, whether the guest has crashed, and the machine's own time. Package wire
// defines the messages on the line.
package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"

	"guesthouse.example/internal/printable"
	"guesthouse.example/internal/wire"
)

// ErrLineEnded says that QEMU has closed its end of the line, as it does when it exits.
var ErrLineEnded = errors.New("the line has ended")

// A Client is the host's end of one machine's line. The guest may have no agent, or one that is
// silent: every call that waits for the agent ends with its context. Only one request is under way
// at a time; other callers wait for their turn. Messages about commands need no turn. All methods may be
// called from any goroutine.
type Client struct {
	conn   net.Conn
	frames *frameWriter
	wire   *wire.Conn
	turn   chan struct{} // holds a token while a request is under way, or the guest is quiet
	line   chan struct{} // holds a token while a message is sent, or the guest is quiet
	quiet  bool          // the holder of the turn has the line too

	hello     chan struct{} // closed when the agent has said hello
	helloOnce sync.Once
	done      chan struct{} // closed when Listen has ended
	err       error         // why Listen has ended; set before done is closed

	mu       sync.Mutex // guards all fields below
	log      io.Writer
	pending  *request // the request that waits for its answer; nil if none does
	events   eventLog
	told     chan struct{} // closed and replaced at every event
	powerOff string
	exit     *wire.Exit
	covered  func(name string, data []byte, last bool) // gets the coverage data; nil to drop it
	commands map[uint32]*Command                       // by the sequence numbers of their requests
	calls    map[uint32]*Call
}

// New returns the client of a machine. The client logs every message as a line. For a machine that is restored
// from a template, saved is what the template keeps of the conversation; otherwise it is nil. The
// client receives nothing before Listen is called.
func New(conn net.Conn, log io.Writer, saved *Saved) *Client {
	frames := &frameWriter{Conn: conn, busy: make(chan struct{}, 1)}
	c := &Client{conn: conn, frames: frames, wire: wire.NewHarness(frames), log: log,
		turn: make(chan struct{}, 1), line: make(chan struct{}, 1), hello: make(chan struct{}), done: make(chan struct{}),
		told: make(chan struct{}), commands: make(map[uint32]*Command), calls: make(map[uint32]*Call)}
	if saved != nil {
		c.wire.Open(saved.Epoch)
		c.events = newEventLog(saved)
	}
	return c
}

// Listen receives messages until the line ends or the guest breaks the protocol. Then it closes
// the line, so that the guest does not wait for a reader.
func (c *Client) Listen() {
	defer close(c.done)
	defer c.conn.Close()
	for {
		m, err := c.wire.Receive()
		if err == nil {
			c.logMessage("guest", m)
			err = c.receive(m)
		}
		if err != nil {
			if err == io.EOF {
				err = ErrLineEnded
			}
			c.err = fmt.Errorf("the guest's agent: %w", err)
			c.logf("end: %v\n", err)
			c.endCommands()
			return
		}
	}
}

// endCommands ends the streams of all commands when the line has ended.
func (c *Client) endCommands() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, command := range c.commands {
		command.endStreams(c.err)
	}
}

// receive records what the guest reports, and passes an answer to the request that waits for it. It
// drops an answer that comes too late.
func (c *Client) receive(m wire.Message) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch m.Type {
	case wire.Hello:
		c.greeted()
	case wire.Failed:
		return fmt.Errorf("it says: %s", printable.Text(string(m.Payload)))
	case wire.Event:
		c.events.add(string(m.Payload))
		close(c.told)
		c.told = make(chan struct{})
	case wire.PowerOff:
		c.powerOff = string(m.Payload)
	case wire.Ended:
		exit, err := wire.DecodeExit(m.Payload)
		if err != nil {
			return err
		}
		c.exit = &exit
	case wire.Covered:
		p, err := wire.DecodeCoverPiece(m.Payload)
		if err != nil {
			return err
		}
		if c.covered != nil {
			c.covered(p.Name, p.Data, p.Last)
		}
	case wire.CopyIn, wire.CopyOut, wire.Look:
		if call := c.calls[m.Answers]; call != nil {
			delete(c.calls, m.Answers)
			call.answer <- m
		}
		return nil
	case wire.Started, wire.Refused, wire.Data, wire.Credit, wire.Close, wire.Exited:
		if command := c.commands[m.Answers]; command != nil {
			return command.receive(m)
		}
	}
	if r := c.pending; r != nil && r.kind == m.Type && r.sequence == m.Answers {
		r.answer <- m
		c.pending = nil
	}
	return nil
}

func (c *Client) greeted() { c.helloOnce.Do(func() { close(c.hello) }) }

// Present reports whether the guest is known to have an agent.
func (c *Client) Present() bool {
	select {
	case <-c.hello:
		return true
	default:
		return false
	}
}

// AwaitHello waits until the agent has said hello.
func (c *Client) AwaitHello(ctx context.Context) error {
	select {
	case <-c.hello:
		return nil
	case <-c.done:
		return c.err
	case <-ctx.Done():
		return fmt.Errorf("hello of the guest's agent: %w", context.Cause(ctx))
	}
}

// Done returns a channel that is closed when Listen has ended, because the line has ended or the guest
// has broken the protocol. Err then returns which.
func (c *Client) Done() <-chan struct{} { return c.done }

// Err returns why the conversation has ended. It is nil until Done is closed.
func (c *Client) Err() error {
	select {
	case <-c.done:
		return c.err
	default:
		return nil
	}
}

// PowerOffReason returns the guest's reason for its power-off, or "" if it has given none.
func (c *Client) PowerOffReason() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.powerOff
}

// Exit returns how the guest's program ended, or nil if the agent has not reported its end.
func (c *Client) Exit() *wire.Exit {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.exit
}

// OnCovered sets the function that gets the guest's coverage data, piece by piece: of each file of the guest's
// CoverDir its name, and whether the piece is the last. The caller must not call the client in it.
func (c *Client) OnCovered(f func(name string, data []byte, last bool)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.covered = f
}

// Remark adds a line to the log that is no message.
func (c *Client) Remark(text string) { c.logf("harness: %s\n", text) }

// logMessage logs a message and its sender.
func (c *Client) logMessage(sender string, m wire.Message) {
	switch m.Type {
	case wire.Event, wire.PowerOff, wire.Failed, wire.Remark:
		c.logf("%s: %s: %q\n", sender, m.Type, m.Payload)
	case wire.Execute:
		command, _ := wire.DecodeCommand(m.Payload)
		c.logf("%s: %s: %.4096q\n", sender, m.Type, command.Args)
	case wire.Refused:
		refusal, _ := wire.DecodeRefusal(m.Payload)
		c.logf("%s: %s: %d: %q\n", sender, m.Type, refusal.Status, refusal.Why)
	case wire.Data, wire.Credit, wire.Covered: // too many
	case wire.Ended, wire.Exited:
		exit, _ := wire.DecodeExit(m.Payload) // receive reports the error
		c.logf("%s: %s: %v %q\n", sender, m.Type, exit, exit.Why)
	default:
		c.logf("%s: %s, %d bytes, epoch %d\n", sender, m.Type, len(m.Payload), c.wire.Epoch())
	}
}

func (c *Client) logf(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	fmt.Fprintf(c.log, format, args...)
}
