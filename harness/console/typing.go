package console

import (
	"context"
	"fmt"
	"time"

	"guesthouse.example/harness/internal/until"
)

// Send types line and a carriage return, as a person would press Enter. No pattern of Expect
// matches the echo of the line: that a guest shows what was typed is no answer.
//
// A guest may answer with the very line, and echo nothing: a loopback for example. What is the
// whole line, alone on its own or behind a prompt, is taken for the echo, once. For such a
// guest, and for a test of the echo itself, use Type.
func (c *Console) Send(ctx context.Context, line string) error {
	return c.typeIn(ctx, []byte(line+"\r"), true)
}

// Type sends bytes to the guest as if typed, a few at once, each time waiting
// for their echo, and where the guest echoes nothing, for 10 ms. The echo says
// that the guest's terminal has them, not that a program has read them: a
// terminal holds some thousand bytes for a program that is busy, and a line of
// at most 4095, so whoever types much waits for the answers. Patterns of Expect match the echo.
//
// After the end of the console it fails, and so it does when ctx ends, also
// while the guest takes nothing from its serial port. The error says how many
// bytes were sent. Those bytes stay before whatever is typed next; a terminal
// drops an unfinished line at Ctrl-U ("\x15").
func (c *Console) Type(ctx context.Context, p []byte) error {
	return c.typeIn(ctx, p, false)
}

// HoldTyping waits until nobody types, and then keeps Send and Type waiting until release is
// called.
func (c *Console) HoldTyping(ctx context.Context) (release func(), err error) {
	select {
	case c.typing <- struct{}{}:
		return func() { <-c.typing }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (c *Console) typeIn(ctx context.Context, p []byte, hideEcho bool) error {
	release, err := c.HoldTyping(ctx)
	if err != nil {
		return fmt.Errorf("type into the console: %w", err)
	}
	defer release()
	if hideEcho {
		defer c.expectEcho(p)()
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
		before := c.Len()
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
		now := c.logFrom(from)
		if now.lost > 0 || len(now.text) >= n {
			return nil
		}
		if now.ended {
			return ErrEnded
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
