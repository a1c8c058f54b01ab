package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"guesthouse.example/internal/wire"
)

// A Command is a command that the agent runs in the guest.
type Command struct {
	client *Client
	number uint32 // of the request

	// ctx ends when nobody needs the command's streams any more.
	ctx context.Context
	end context.CancelFunc

	answered chan struct{} // closed when the agent has started or refused the command
	exited   chan struct{} // closed when the process has ended, or was never started
	finished chan struct{} // closed when the process and its output have ended

	in  *wire.Allowance
	out [wire.Streams]*wire.Inbox // nil for Stdin, and for a stream that is not piped

	// These are guarded by client.mu. They do not change any more when the channels above are closed.
	refusal  *wire.Refusal
	exit     wire.Exit
	open     int  // how many of out have not ended
	inClosed bool // Stdin was closed by either end
}

// Start makes the agent run a command. It returns when the request is sent.
func (c *Client) Start(ctx context.Context, request wire.Command) (*Command, error) {
	payload, err := request.Encode()
	if err != nil {
		return nil, err
	}
	command := &Command{client: c, answered: make(chan struct{}), exited: make(chan struct{}), finished: make(chan struct{}),
		in: wire.NewAllowance(), inClosed: !request.Piped[wire.Stdin]}
	command.ctx, command.end = context.WithCancel(context.Background())
	for s := wire.Stdout; s < wire.Streams; s++ {
		if request.Piped[s] {
			command.open++
			command.out[s] = wire.NewInbox(func(n int) { command.send(command.ctx, wire.Credit, wire.EncodeCredit(s, n)) })
		}
	}
	err = c.sendInLine(ctx, wire.Message{Type: wire.Execute, Payload: payload}, func(number uint32) {
		command.number = number
		c.commands[number] = command
	})
	if err != nil {
		command.Release()
		if ended := c.Err(); ended != nil {
			return nil, ended
		}
		return nil, notReached(err)
	}
	return command, nil
}

// receive handles a message about the command. The caller holds client.mu.
func (c *Command) receive(m wire.Message) error {
	switch m.Type {
	case wire.Started:
		return once(c.answered, "a command was started twice")
	case wire.Refused:
		r, err := wire.DecodeRefusal(m.Payload)
		if err != nil {
			return err
		}
		c.refusal, c.open, c.inClosed = &r, 0, true
		c.endStreams(io.EOF)
		if err := once(c.answered, "a command was started twice"); err != nil {
			return err
		}
		close(c.exited)
		c.finish()
		return nil
	case wire.Exited:
		exit, err := wire.DecodeExit(m.Payload)
		if err != nil {
			return err
		}
		if isClosed(c.exited) || !isClosed(c.answered) {
			return errors.New("a command has ended that does not run")
		}
		c.exit, c.inClosed = exit, true
		c.in.Close()
		close(c.exited)
		c.finish()
		return nil
	}
	stream, rest, err := wire.DecodeStream(m.Payload)
	if err != nil {
		return err
	}
	if stream == wire.Stdin {
		switch m.Type {
		case wire.Credit:
			n, err := wire.DecodeNumber(rest)
			if err != nil {
				return err
			}
			return c.in.Grant(n)
		case wire.Close:
			c.inClosed = true
			c.in.Close()
			return nil
		}
	}
	out := c.out[stream]
	switch {
	case out == nil, m.Type == wire.Credit:
		return fmt.Errorf("%s of a command's %v", m.Type, stream)
	case m.Type == wire.Data:
		return out.Receive(rest)
	}
	if !out.Ended() {
		out.End(io.EOF)
		c.open--
		c.finish()
	}
	return nil
}

func once(ch chan struct{}, twice string) error {
	if isClosed(ch) {
		return errors.New(twice)
	}
	close(ch)
	return nil
}

func isClosed(ch chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

// finish notes the end of the command if the process and all its output have ended. The caller holds client.mu.
func (c *Command) finish() {
	if c.open == 0 && isClosed(c.exited) && !isClosed(c.finished) {
		close(c.finished)
		delete(c.client.commands, c.number)
	}
}

func (c *Command) endStreams(err error) {
	c.in.Close()
	for _, out := range c.out {
		if out != nil {
			out.End(err)
		}
	}
}

// Answered returns a channel that is closed when the agent has started the command, or has refused to.
func (c *Command) Answered() <-chan struct{} { return c.answered }

// Exited returns a channel that is closed when the command's process has ended. The channels of a Command
// stay open if the client's line ends first.
func (c *Command) Exited() <-chan struct{} { return c.exited }

// Finished returns a channel that is closed when the command's process and all its output have ended.
func (c *Command) Finished() <-chan struct{} { return c.finished }

// Refusal returns why the command was not started, or nil if it was.
func (c *Command) Refusal() *wire.Refusal {
	c.client.mu.Lock()
	defer c.client.mu.Unlock()
	return c.refusal
}

// Exit returns how the command ended.
func (c *Command) Exit() wire.Exit {
	c.client.mu.Lock()
	defer c.client.mu.Unlock()
	return c.exit
}

// Read reads a piped output. It returns io.EOF when the command and its output have ended, and another error if
// the line ends before. One goroutine may read a stream.
func (c *Command) Read(s wire.Stream, p []byte) (int, error) { return c.out[s].Read(p) }

// CloseRead drops the rest of a piped output. A command that goes on to write it gets SIGPIPE. CloseRead does not
// wait until the guest knows.
func (c *Command) CloseRead(s wire.Stream) {
	c.client.mu.Lock()
	defer c.client.mu.Unlock()
	ended := c.out[s].Ended()
	c.out[s].CloseRead()
	if !ended {
		c.open--
		c.finish()
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), closeWithin)
			defer cancel()
			c.send(ctx, wire.Close, wire.EncodeStream(s)) // a guest that does not read sends nothing more
		}()
	}
}

// closeWithin bounds, in wall time, how long CloseRead tries to reach the guest.
const closeWithin = time.Minute

// ErrStdinClosed says that a command does not read its standard input any more, or has ended.
var ErrStdinClosed = errors.New("the command has closed its standard input")

// Write writes the command's standard input. It waits until the guest has room for the last byte, or until ctx
// ends. One goroutine may write.
func (c *Command) Write(ctx context.Context, p []byte) (n int, err error) {
	stop := context.AfterFunc(ctx, c.in.Close)
	defer stop()
	buf := make([]byte, 1, 1+min(len(p), wire.MaxData))
	buf[0] = byte(wire.Stdin)
	for len(p) > 0 {
		room := c.in.Take(len(p))
		switch {
		case room > 0:
			err = c.send(ctx, wire.Data, append(buf[:1], p[:room]...))
		case ctx.Err() != nil:
			err = context.Cause(ctx)
		default:
			err = ErrStdinClosed
		}
		if err != nil {
			return n, err
		}
		n += room
		p = p[room:]
	}
	return n, nil
}

// CloseWrite ends the command's standard input.
func (c *Command) CloseWrite(ctx context.Context) error {
	c.client.mu.Lock()
	closed := c.inClosed
	c.inClosed = true
	c.client.mu.Unlock()
	if closed {
		return nil
	}
	c.in.Close()
	return c.send(ctx, wire.Close, wire.EncodeStream(wire.Stdin))
}

// Signal sends a signal to the command's process group. It does nothing if the command has ended.
func (c *Command) Signal(ctx context.Context, signal int) error {
	return c.send(ctx, wire.Signal, wire.EncodeNumber(uint32(signal)))
}

// Resize changes the size of the command's terminal.
func (c *Command) Resize(ctx context.Context, size wire.Size) error {
	return c.send(ctx, wire.Resize, size.Encode())
}

// Kill makes the agent kill the command and all processes that it has started.
func (c *Command) Kill(ctx context.Context) error { return c.send(ctx, wire.Kill, nil) }

func (c *Command) send(ctx context.Context, t wire.Type, payload []byte) error {
	return c.client.sendInLine(ctx, wire.Message{Type: t, Answers: c.number, Payload: payload}, func(uint32) {})
}

// Release drops all further messages about the command, and ends its streams.
func (c *Command) Release() {
	c.client.mu.Lock()
	defer c.client.mu.Unlock()
	c.end()
	c.endStreams(errReleased)
	if c.client.commands[c.number] == c { // or the number is that of a command of a later conversation
		delete(c.client.commands, c.number)
	}
}

var errReleased = errors.New("the command is not followed any more")

// noCommands returns an error while commands run or files are copied.
func (c *Client) noCommands() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := len(c.commands); n > 0 {
		return fmt.Errorf("%d of the guest's commands still run: wait for their end", n)
	}
	if len(c.calls) > 0 {
		return errors.New("files of the guest are being copied or read: wait for the end")
	}
	return nil
}
