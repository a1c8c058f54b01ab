package console

import (
	"context"
	"fmt"
	"time"

	"guesthouse.example/harness/internal/until"
)

// Send types line and a carriage return, as the Enter key sends it. Patterns of Expect do not match
// the echo of the line, because an echo is no answer.
//
// A guest that does not echo may answer with the same line, as a loopback does. If the first such answer
// fills a line of text, alone or behind a prompt, the console mistakes it for the echo. For such a
// guest, and for a test of the echo itself, use Type.
func (c *Console) Send(ctx context.Context, line string) error {
	return c.typeIn(ctx, []byte(line+"\r"), true)
}

// Type sends bytes to the guest as if a person typed them. It sends at most 32 bytes at a time and waits
// for their echo, or for 10 ms if the guest does not echo. An echo shows that the guest's terminal has
// the bytes, but not that a program has read them. A Linux terminal buffers at most 4,095 bytes for a
// program that does not read; to type more, wait for answers in between. Patterns of Expect match the
// echo.
//
// Type fails when the line has ended and when ctx ends, even while the guest accepts no byte (see
// [New]). The error says how many bytes were sent. The guest keeps those bytes, and the next
// bytes follow them; a terminal drops an unfinished line at Ctrl-U ("\x15").
func (c *Console) Type(ctx context.Context, p []byte) error {
	return c.typeIn(ctx, p, false)
}

// HoldTyping waits until no Send or Type runs. Later calls of Send and Type wait until release is called.
// The caller must call release exactly once.
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

// typeAll types p and returns how many bytes it sent. The caller holds the token of typing.
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
			return sent, fmt.Errorf("the guest accepts no more: %w", err)
		case err != nil:
			return sent, err
		}
		if err := c.waitEcho(ctx, before, n); err != nil {
			return sent, err
		}
	}
	return sent, nil
}

// waitEcho waits until n bytes have arrived after an offset, for at most 10 ms.
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
