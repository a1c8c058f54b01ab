package harness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"guesthouse.example/harness/internal/agent"
	"guesthouse.example/internal/wire"
)

// StdinPipe returns a pipe to the command's standard input. A Write waits until the command, or the pipe's
// buffer of 256 KiB in the guest, takes the bytes. The pipe works after Start. Close ends the command's
// input; Wait closes the pipe too.
func (c *Cmd) StdinPipe() (io.WriteCloser, error) {
	if c.Stdin != nil || c.running != nil {
		return nil, c.failed(errors.New("StdinPipe: Stdin is already set, or the command was started"))
	}
	p := &stdinPipe{c}
	c.Stdin = p
	c.pipes = append(c.pipes, p)
	return p, nil
}

// StdoutPipe returns a pipe from the command's standard output. Wait closes the pipe when the command has exited,
// so read it to its end before you call Wait. The pipe works after Start. If Close comes before the end, the
// command gets SIGPIPE when it goes on to write.
func (c *Cmd) StdoutPipe() (io.ReadCloser, error) {
	return c.outputPipe("Stdout", wire.Stdout, &c.Stdout)
}

// StderrPipe is StdoutPipe for the command's standard error.
func (c *Cmd) StderrPipe() (io.ReadCloser, error) {
	return c.outputPipe("Stderr", wire.Stderr, &c.Stderr)
}

// outputPipe makes a pipe the value of a field.
func (c *Cmd) outputPipe(name string, s wire.Stream, field *io.Writer) (io.ReadCloser, error) {
	if *field != nil || c.running != nil {
		return nil, c.failed(fmt.Errorf("%[1]sPipe: %[1]s is already set, or the command was started", name))
	}
	p := &outputPipe{c, s}
	*field = p
	c.pipes = append(c.pipes, p)
	return p, nil
}

type stdinPipe struct{ c *Cmd }

var errNotStarted = errors.New("the command was not started")

func (p *stdinPipe) Write(b []byte) (int, error) {
	if p.c.running == nil {
		return 0, errNotStarted
	}
	return p.c.running.Write(p.c.ctx, b)
}

func (p *stdinPipe) Close() error {
	if p.c.running == nil {
		return nil
	}
	return p.c.running.CloseWrite(p.c.ctx)
}

// Read makes a stdinPipe the value of Cmd.Stdin. Nobody calls it.
func (p *stdinPipe) Read([]byte) (int, error) { return 0, io.EOF }

type outputPipe struct {
	c      *Cmd
	stream wire.Stream
}

func (p *outputPipe) Read(b []byte) (int, error) {
	if p.c.running == nil {
		return 0, errNotStarted
	}
	return p.c.running.Read(p.stream, b)
}

func (p *outputPipe) Close() error {
	if p.c.running != nil {
		p.c.running.CloseRead(p.stream)
	}
	return nil
}

// Write makes an outputPipe the value of Cmd.Stdout or Cmd.Stderr. Nobody calls it.
func (p *outputPipe) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

// copyStreams begins to copy what is not piped to the caller.
func (c *Cmd) copyStreams(request wire.Command) {
	c.copies = make(chan error, wire.Streams)
	output := func(s wire.Stream, w io.Writer) {
		if _, piped := w.(*outputPipe); piped || !request.Piped[s] {
			return
		}
		c.copied++
		go func() { c.copies <- c.copyOutput(s, w) }()
	}
	stderr := c.Stderr
	if stderr == nil {
		c.stderr = &tail{}
		stderr = c.stderr
	}
	stdout := c.Stdout
	if stdout == nil {
		stdout = io.Discard // of a terminal
	}
	output(wire.Stdout, stdout)
	output(wire.Stderr, stderr)
	if _, piped := c.Stdin.(*stdinPipe); !piped && request.Piped[wire.Stdin] {
		go c.copyInput()
	}
}

// copyOutput copies an output to a writer. If a Write fails, it closes the output.
func (c *Cmd) copyOutput(s wire.Stream, w io.Writer) error {
	buf := make([]byte, 32<<10)
	for {
		n, err := c.running.Read(s, buf)
		if n > 0 {
			written, failed := w.Write(buf[:n])
			if failed == nil && written < n {
				failed = io.ErrShortWrite
			}
			if failed != nil {
				c.running.CloseRead(s)
				return failed
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return nil // the line has ended, or ctx; FollowCommand says why
		}
	}
}

// copyInput copies Stdin to the command.
func (c *Cmd) copyInput() {
	var err error
	if c.Stdin != nil { // nil for a terminal
		_, err = io.Copy(commandInput{c}, c.Stdin)
	}
	if err != nil && !errors.Is(err, agent.ErrStdinClosed) && c.ctx.Err() == nil {
		c.input.Lock() // before the command can see the end of its input, and exit
		c.input.err = err
		c.input.Unlock()
	}
	c.running.CloseWrite(c.ctx)
}

// commandInput is the writer of a command's standard input.
type commandInput struct{ *Cmd }

func (w commandInput) Write(p []byte) (int, error) { return w.running.Write(w.ctx, p) }

// copyWithin bounds, in wall time, how long Wait waits for a Write to Stdout or Stderr after the end of ctx.
const copyWithin = time.Second

// waitCopies waits until all output has been written. It returns the first error. It gives up when ctx has
// ended, because a Write may never return.
func (c *Cmd) waitCopies() (err error) {
	ended := c.ctx.Done()
	var late <-chan time.Time
	for c.copied > 0 {
		select {
		case e := <-c.copies:
			c.copied--
			if err == nil {
				err = e
			}
		case <-ended:
			ended, late = nil, time.After(copyWithin)
		case <-late:
			return fmt.Errorf("a Write of its output does not return: %w", context.Cause(c.ctx))
		}
	}
	return err
}

// A tail keeps the beginning and the end of what is written to it.
type tail struct {
	first, last []byte
	left        int64 // how many bytes are left out between them
}

// tailSize is how many bytes a tail keeps of the beginning, and of the end.
const tailSize = 32 << 10

func (t *tail) Write(p []byte) (int, error) {
	n := len(p)
	if room := tailSize - len(t.first); room > 0 {
		k := min(room, len(p))
		t.first = append(t.first, p[:k]...)
		p = p[k:]
	}
	t.last = append(t.last, p...)
	if over := len(t.last) - tailSize; over > 0 {
		t.left += int64(over)
		t.last = append(t.last[:0], t.last[over:]...)
	}
	return n, nil
}

// Bytes returns what is kept.
func (t *tail) Bytes() []byte {
	if t == nil {
		return nil
	}
	all := bytes.Clone(t.first)
	if t.left > 0 {
		all = fmt.Appendf(all, "\n… %d bytes left out …\n", t.left)
	}
	return append(all, t.last...)
}
