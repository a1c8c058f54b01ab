// Package until writes to connections whose other end may not read: a write
// lasts until it is done or until a context ends.
package until

import (
	"context"
	"errors"
	"io"
	"os"
	"time"
)

// Write writes p to w until ctx ends. It returns how many bytes went, and
// where ctx ended first its cause. A w without SetWriteDeadline is one whose
// writes do not block. One write at a time: it leaves w without a deadline.
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

// Ends calls f, which fails with os.ErrDeadlineExceeded after a deadline that
// set sets, and makes it fail when ctx ends. That failure becomes ctx's cause.
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
