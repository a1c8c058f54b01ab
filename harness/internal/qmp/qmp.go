// Package qmp is a client of the QEMU Machine Protocol, the JSON lines by which a
// program controls a running QEMU. It has what a test harness needs: the greeting,
// commands, events, and a log of every line. It has no types for single commands:
// callers use the names of commands and arguments in QEMU's reference.
//
// Source: docs/interop/qmp-spec.rst and the QMP reference of QEMU.
package qmp

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"guesthouse.example/internal/printable"
)

// An Event is what QEMU sends without a command, such as SHUTDOWN.
type Event struct {
	Name string          `json:"event"`
	Data json.RawMessage `json:"data"`
}

// An Error is QEMU's refusal of a command.
type Error struct {
	Command string // the command that was refused
	Class   string // "GenericError", "CommandNotFound", …
	Desc    string // QEMU's own words
}

func (e *Error) Error() string {
	return fmt.Sprintf("qmp %s: %s (%s)", e.Command, printable.Text(e.Desc), e.Class)
}

// ErrClosed is wrapped by every error that follows the end of the connection,
// which is the end of the QEMU process.
var ErrClosed = errors.New("connection closed")

// A Client is one QMP connection. Its methods may be called from any goroutine;
// QEMU answers commands one after another, in the order in which they are sent.
//
// Every call ends with its context: while it waits for the commands of other calls,
// while QEMU does not read, and while QEMU does not answer. QEMU may still carry out
// a command of such a call later. The client drops the answer.
type Client struct {
	conn    net.Conn
	version string
	log     io.Writer
	logMu   sync.Mutex

	turn    chan struct{} // holds a token while commands are sent and answered
	lastID  uint64        // of a command; an answer has the ID of its command
	waiting sync.Map      // from the ID of a command to a channel with room for its answer
	onEvent func(Event)
	done    chan struct{}
	err     error // why the reader ended; set before done is closed
}

type answer struct {
	ID     uint64          `json:"id"`
	Return json.RawMessage `json:"return"`
	Error  *struct {
		Class string `json:"class"`
		Desc  string `json:"desc"`
	} `json:"error"`
}

// New reads the greeting from conn, agrees on capabilities and returns a client
// that owns conn. The client writes every line to log, which may be nil, with its
// time and direction: ">" to QEMU, "<" from QEMU. It calls onEvent, which may be
// nil, for every event, in order. onEvent must not block.
func New(ctx context.Context, conn net.Conn, log io.Writer, onEvent func(Event)) (*Client, error) {
	c := &Client{conn: conn, log: log, onEvent: onEvent, turn: make(chan struct{}, 1), done: make(chan struct{})}
	greeted := make(chan struct{})
	go c.read(greeted)
	select {
	case <-greeted:
	case <-c.done:
		return nil, fmt.Errorf("qmp greeting: %w", c.err)
	case <-ctx.Done():
		c.Close()
		return nil, fmt.Errorf("qmp greeting: %w", context.Cause(ctx))
	}
	if err := c.Execute(ctx, "qmp_capabilities", nil, nil); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// longestLine is the most bytes of a line from QEMU. The longest line of a QEMU that no guest has
// taken over lists the connections of its user network, with about 100 bytes for each.
const longestLine = 16 << 20

func (c *Client) read(greeted chan struct{}) {
	lines := bufio.NewScanner(c.conn)
	lines.Buffer(nil, longestLine)
	var err error
	for {
		if !lines.Scan() {
			if err = lines.Err(); err == nil {
				err = io.EOF
			}
			if !errors.Is(err, bufio.ErrTooLong) {
				err = fmt.Errorf("%w: %w", ErrClosed, err)
			}
			break
		}
		line := lines.Bytes()
		c.record("<", line)
		var m struct {
			QMP json.RawMessage `json:"QMP"`
			Event
			answer
		}
		if err = json.Unmarshal(line, &m); err != nil {
			err = fmt.Errorf("line %.80q is no QMP: %w", line, err)
			break
		}
		if m.QMP != nil && greeted == nil {
			err = errors.New("QEMU greets twice")
			break
		}
		switch {
		case m.QMP != nil:
			var greeting struct {
				Version struct {
					QEMU    struct{ Major, Minor, Micro int }
					Package string
				}
			}
			if err := json.Unmarshal(m.QMP, &greeting); err == nil {
				v := greeting.Version
				c.version = strings.TrimSpace(fmt.Sprintf("%d.%d.%d %s", v.QEMU.Major, v.QEMU.Minor, v.QEMU.Micro, v.Package))
			}
			close(greeted)
			greeted = nil
		case m.Name != "":
			if c.onEvent != nil {
				c.onEvent(m.Event)
			}
		default:
			// If no channel waits, the context of the command's caller has ended.
			if wait, ok := c.waiting.LoadAndDelete(m.ID); ok {
				wait.(chan answer) <- m.answer
			}
		}
	}
	c.err = err
	c.conn.Close()
	close(c.done)
}

// Version returns the version in QEMU's greeting, such as "7.2.22", followed by the
// version of the distribution's package if the greeting has one.
func (c *Client) Version() string { return c.version }

// Close ends the connection. QEMU goes on running.
func (c *Client) Close() error {
	err := c.conn.Close()
	<-c.done
	return err
}

// Done returns a channel that is closed when QEMU or Close has ended the connection.
func (c *Client) Done() <-chan struct{} { return c.done }

func (c *Client) record(direction string, line []byte) {
	if c.log == nil {
		return
	}
	c.logMu.Lock()
	defer c.logMu.Unlock()
	line = printable.JSON(bytes.TrimRight(line, "\r\n"))
	fmt.Fprintf(c.log, "%s %s %s\n", time.Now().UTC().Format("15:04:05.000000"), direction, line)
}
