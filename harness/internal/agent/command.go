package agent

import (
	"context"
	"errors"
	"fmt"

	"guesthouse.example/internal/wire"
)

// maxOutput is how many bytes are kept of each stream of a command.
const maxOutput = 8 << 20

// A Command is a command that the agent runs in the guest. Its output is kept until Release is
// called.
type Command struct {
	client *Client
	number uint32        // of the request
	done   chan struct{} // closed when the command has ended
	output Output        // guarded by client.mu
}

// An Output is what a command has written, and how the command ended if it has.
type Output struct {
	Stdout, Stderr, Combined Stream
	Exit                     wire.Exit
}

// A Stream is the beginning of a command's output.
type Stream struct {
	Kept    []byte // the first 8 MiB
	written int    // how many bytes the command wrote
}

func (s *Stream) add(b []byte) {
	s.written += len(b)
	s.Kept = append(s.Kept, b[:min(len(b), maxOutput-len(s.Kept))]...)
}

// Truncated returns an error if the command wrote more than is kept.
func (s *Stream) Truncated() error {
	if s.written == len(s.Kept) {
		return nil
	}
	return fmt.Errorf("it wrote %d bytes, and only the first %d are kept", s.written, len(s.Kept))
}

// Start makes the agent run a command. The first of args is the command's name.
func (c *Client) Start(ctx context.Context, args []string) (*Command, error) {
	payload, err := wire.EncodeArgs(args)
	if err != nil {
		return nil, err
	}
	if err := c.takeTurn(ctx); err != nil {
		return nil, err
	}
	defer c.endTurn()
	command := &Command{client: c, done: make(chan struct{})}
	c.mu.Lock() // the command may end before send returns
	command.number = c.wire.Next()
	c.commands[command.number] = command
	c.mu.Unlock()
	if err := c.send(ctx, wire.Message{Type: wire.Execute, Payload: payload}, nil); err != nil {
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
	if m.Type == wire.Exited {
		exit, err := wire.DecodeExit(m.Payload)
		if err != nil {
			return err
		}
		select {
		case <-c.done:
			return errors.New("a command has ended twice")
		default:
		}
		c.output.Exit = exit
		close(c.done)
		return nil
	}
	if len(m.Payload) == 0 || m.Payload[0] != wire.Stdout && m.Payload[0] != wire.Stderr {
		return fmt.Errorf("output of %d bytes is of neither stream of a command", len(m.Payload))
	}
	stream := &c.output.Stdout
	if m.Payload[0] == wire.Stderr {
		stream = &c.output.Stderr
	}
	stream.add(m.Payload[1:])
	c.output.Combined.add(m.Payload[1:])
	return nil
}

// Done returns a channel that is closed when the command has ended. The channel stays open if the client's
// line ends first.
func (c *Command) Done() <-chan struct{} { return c.done }

// Output returns what the command has written so far.
func (c *Command) Output() Output {
	c.client.mu.Lock()
	defer c.client.mu.Unlock()
	return c.output
}

// Kill makes the agent kill the command and all processes that it has started, and waits until the command
// has ended.
func (c *Command) Kill(ctx context.Context) error {
	if err := c.client.takeTurn(ctx); err != nil {
		return err
	}
	err := c.client.send(ctx, wire.Message{Type: wire.Kill, Payload: wire.EncodeNumber(c.number)}, nil)
	c.client.endTurn()
	if err != nil {
		return err
	}
	select {
	case <-c.done:
		return nil
	case <-c.client.done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Release drops all further messages about the command.
func (c *Command) Release() {
	c.client.mu.Lock()
	defer c.client.mu.Unlock()
	delete(c.client.commands, c.number)
}

// noCommands returns an error while commands run.
func (c *Client) noCommands() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := len(c.commands); n > 0 {
		return fmt.Errorf("%d of the guest's commands still run: wait for their end", n)
	}
	return nil
}
