package console

import (
	"context"
	"fmt"
	"io"
	"time"

	"guesthouse.example/harness/internal/until"
)

// Follow writes the log to w, from its first byte on and then as it grows, until the line ends
// (nil), ctx ends, or w fails. A slow w does not hold up the guest: when w is more than 16 MiB
// behind, Follow writes a line in place of the bytes that it has missed. When ctx ends during a
// Write, Follow gives that Write another second and then returns without it.
func (c *Console) Follow(ctx context.Context, w io.Writer) error {
	var at int64
	for {
		now := c.logFrom(at)
		if now.lost > 0 {
			text := fmt.Sprintf("\n[%d bytes of console left out: they came faster than they were read]\n", now.lost)
			if err := writeOrLeave(ctx, w, []byte(text)); err != nil {
				return err
			}
		}
		if len(now.text) > 0 {
			if err := writeOrLeave(ctx, w, now.text); err != nil {
				return err
			}
			at += now.lost + int64(len(now.text))
			continue
		}
		if now.ended {
			return nil
		}
		select {
		case <-now.more:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// leaveAfter is how long a Write may go on when its context has ended.
const leaveAfter = time.Second

// writeOrLeave writes text to w. If the Write goes on for more than leaveAfter after the end of ctx,
// writeOrLeave returns without waiting for it. The Write may then still read text, so text must never
// be overwritten.
func writeOrLeave(ctx context.Context, w io.Writer, text []byte) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	wrote := make(chan error, 1)
	go func() {
		_, err := w.Write(text)
		wrote <- err
	}()
	if err, ok := until.Receive(ctx, wrote, leaveAfter); ok {
		return err
	}
	return context.Cause(ctx)
}
