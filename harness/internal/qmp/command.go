package qmp

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"

	"guesthouse.example/harness/internal/until"
)

// Execute sends a command with its arguments (nil, or a value that encoding/json
// encodes as an object) and decodes its result into result, which may be nil. The
// error is an *Error if QEMU refuses the command, and wraps ErrClosed after the end
// of QEMU.
func (c *Client) Execute(ctx context.Context, command string, arguments, result any) error {
	return c.ExecuteAll(ctx, Command{Name: command, Arguments: arguments, Result: result})
}

// Give passes an open file to QEMU under a name, for a command that takes
// "fd:NAME". QEMU gets a duplicate of the descriptor, so the caller may close f.
func (c *Client) Give(ctx context.Context, name string, f *os.File) error {
	return c.ExecuteAll(ctx, Command{Name: "getfd", Arguments: map[string]string{"fdname": name}, file: f})
}

// send writes lines, and an open file with their first byte unless f is nil. It
// returns how many bytes it wrote.
func (c *Client) send(ctx context.Context, lines []byte, f *os.File) (n int, err error) {
	if f == nil {
		return until.Write(ctx, c.conn, lines)
	}
	conn, ok := c.conn.(*net.UnixConn)
	if !ok {
		return 0, errors.New("the connection carries no files")
	}
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	if err = until.Ends(ctx, conn.SetWriteDeadline, func() (err error) {
		n, _, err = conn.WriteMsgUnix(lines, unix.UnixRights(int(f.Fd())), nil)
		return err
	}); err != nil || n == len(lines) {
		return n, err
	}
	more, err := until.Write(ctx, conn, lines[n:])
	return n + more, err
}

// A Command is a command for ExecuteAll and ExecuteAfter.
type Command struct {
	Name      string
	Arguments any // nil, or a value that encoding/json encodes as an object
	Result    any // the result is decoded into it, unless it is nil

	file *os.File // sent with the command; may be nil
}

// ExecuteAll sends all commands before it waits for their answers. QEMU carries out
// all of them, one after another, even if it refuses one. The error is that of the
// first command that QEMU refused.
func (c *Client) ExecuteAll(ctx context.Context, commands ...Command) error {
	return c.ExecuteAfter(ctx, nil, commands...)
}

// ExecuteAfter is ExecuteAll for commands that QEMU must carry out only when after has
// returned nil, but as soon as possible then. QEMU reads commands byte by byte, with
// seven system calls for each byte. So ExecuteAfter sends the first command except for
// its last byte before it calls after. If after fails, ExecuteAfter closes the
// connection, because an incomplete command was sent, and returns the error of after.
func (c *Client) ExecuteAfter(ctx context.Context, after func() error, commands ...Command) error {
	fail := func(err error) error { return fmt.Errorf("qmp %s: %w", commands[0].Name, err) }
	select {
	case c.turn <- struct{}{}:
	case <-c.done:
		return fail(c.err)
	case <-ctx.Done():
		return fail(fmt.Errorf("QEMU has not answered earlier commands: %w", context.Cause(ctx)))
	}
	unlock := func() { <-c.turn }
	defer func() { unlock() }()
	if ctx.Err() != nil {
		return fail(context.Cause(ctx))
	}

	waits := make([]chan answer, len(commands))
	var lines []byte
	var file *os.File
	for i, m := range commands {
		c.lastID++
		line, err := json.Marshal(struct {
			Execute   string `json:"execute"`
			Arguments any    `json:"arguments,omitempty"`
			ID        uint64 `json:"id"`
		}{m.Name, m.Arguments, c.lastID})
		if err != nil {
			return fmt.Errorf("qmp %s: %w", m.Name, err)
		}
		line = append(line, '\n')
		c.record(">", line)
		lines = append(lines, line...)
		waits[i] = make(chan answer, 1)
		c.waiting.Store(c.lastID, waits[i])
		defer c.waiting.Delete(c.lastID)
		if m.file != nil {
			file = m.file
		}
	}
	if after != nil {
		most := bytes.IndexByte(lines, '\n') - len("}")
		_, err := c.send(ctx, lines[:most], nil)
		if err == nil {
			if err = after(); err != nil {
				c.conn.Close()
				return err
			}
		} else if ctx.Err() != nil {
			c.conn.Close()
		}
		if err != nil {
			return fail(c.unsent(ctx, err))
		}
		lines = lines[most:]
	}
	if n, err := c.send(ctx, lines, file); err != nil {
		if n > 0 && ctx.Err() != nil {
			// QEMU would read the next command as the rest of this one, so the rest is sent
			// first.
			endTurn := unlock
			unlock = func() {}
			go func() {
				defer endTurn()
				c.conn.Write(lines[n:]) // after an error the connection has ended, which read reports
			}()
		}
		return fail(c.unsent(ctx, err))
	}
	var refused error
	for i, m := range commands {
		err := c.answer(ctx, waits[i], m)
		if refusal := (*Error)(nil); err != nil && !errors.As(err, &refusal) {
			return err
		}
		if refused == nil {
			refused = err
		}
	}
	return refused
}

// unsent returns why commands were not sent completely.
func (c *Client) unsent(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("QEMU does not read its commands: %w", context.Cause(ctx))
	}
	return fmt.Errorf("%w: %w", ErrClosed, err)
}

// answer waits for the answer to a command that was sent.
func (c *Client) answer(ctx context.Context, wait <-chan answer, m Command) error {
	select {
	case a := <-wait:
		if a.Error != nil {
			return &Error{Command: m.Name, Class: a.Error.Class, Desc: a.Error.Desc}
		}
		if m.Result == nil {
			return nil
		}
		if err := json.Unmarshal(a.Return, m.Result); err != nil {
			return fmt.Errorf("qmp %s: result: %w", m.Name, err)
		}
		return nil
	case <-c.done:
		return fmt.Errorf("qmp %s: %w", m.Name, c.err)
	case <-ctx.Done():
		return fmt.Errorf("qmp %s: no answer: %w", m.Name, context.Cause(ctx))
	}
}

// Human returns a command that runs a line in QEMU's human monitor. Its result is what
// the monitor prints. It is for lines that have no QMP command, such as "info usernet".
func Human(line string, result *string) Command {
	return Command{Name: "human-monitor-command", Arguments: map[string]string{"command-line": line}, Result: result}
}
