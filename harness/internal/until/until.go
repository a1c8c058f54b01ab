// Package until bounds waits by a context, where the other end may not read or not answer.
package until

import (
	"context"
	"errors"
	"io"
	"os"
	"time"
)

// Take puts a token into a channel when the channel has room. It fails if ctx ends first, or has ended before.
func Take(ctx context.Context, token chan<- struct{}) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	select {
	case token <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Write writes p to w and returns how many bytes it wrote. If ctx ends first, Write stops and returns
// the cause of ctx. It needs the method SetWriteDeadline of w to stop; without the method it returns
// when w.Write does. Two calls for the same w must not overlap. A call that ctx ends removes the write
// deadline of w.
func Write(ctx context.Context, w io.Writer, p []byte) (n int, err error) {
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	d, ok := w.(interface{ SetWriteDeadline(time.Time) error })
	if !ok {
		return w.Write(p)
	}
	err = Ends(ctx, d.SetWriteDeadline, func() (err error) {
		n, err = w.Write(p)
		return err
	})
	return n, err
}

// Ends calls f and returns its error. When ctx ends, it makes f fail with os.ErrDeadlineExceeded: set
// must set the deadline of f. Ends then removes the deadline, and returns the cause of ctx.
func Ends(ctx context.Context, set func(time.Time) error, f func() error) error {
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		set(time.Unix(1, 0))
		close(ended)
	})
	err := f()
	if stop() {
		return err
	}
	<-ended
	set(time.Time{})
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = context.Cause(ctx)
	}
	return err
}

// Receive receives a value from ch. When ctx ends, it waits for at most grace more, in wall time, and then
// returns false.
func Receive[T any](ctx context.Context, ch <-chan T, grace time.Duration) (v T, ok bool) {
	select {
	case v = <-ch:
		return v, true
	case <-ctx.Done():
	}
	select {
	case v = <-ch:
		return v, true
	case <-time.After(grace):
		return v, false
	}
}
