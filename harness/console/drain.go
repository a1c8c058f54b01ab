package console

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// drain reads the line until it ends.
func (c *Console) drain() {
	defer close(c.done)
	buf := make([]byte, 64<<10)
	for {
		n, err := c.line.Read(buf)
		if n > 0 {
			c.append(buf[:n])
		}
		if line, ok := c.line.(polled); ok && errors.Is(err, os.ErrDeadlineExceeded) {
			line.SetReadDeadline(time.Time{})
			c.drainNow(line, buf)
			c.caughtUp <- struct{}{}
		} else if err != nil {
			c.end()
			return
		}
	}
}

// A polled line has read deadlines, which can interrupt a Read, and a file descriptor.
type polled interface {
	SetReadDeadline(time.Time) error
	syscall.Conn
}

// drainNow reads the bytes that have arrived on the line, and does not wait for more.
func (c *Console) drainNow(line polled, buf []byte) {
	raw, err := line.SyscallConn()
	if err != nil {
		return // the line is closed, and the next Read returns the error
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

// CatchUp returns when the log has every byte that had arrived on the line when CatchUp was called,
// or when the line has ended. The line must have a file descriptor and read deadlines, as a
// *net.UnixConn and the *os.File of a pseudoterminal have. On any other line CatchUp cannot know
// what has arrived, and returns an error that wraps [errors.ErrUnsupported].
func (c *Console) CatchUp() error {
	c.catching.Lock()
	defer c.catching.Unlock()
	line, ok := c.line.(polled)
	if !ok || errors.Is(line.SetReadDeadline(time.Unix(1, 0)), os.ErrNoDeadline) {
		return fmt.Errorf("catch up with the console: a %T has no descriptor with read deadlines: %w", c.line, errors.ErrUnsupported)
	}
	select {
	case <-c.caughtUp: // the deadline has interrupted drain, which has called drainNow
	case <-c.done:
	}
	return nil
}
