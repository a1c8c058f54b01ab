// Package until bounds writes by a context, for connections whose other end may not read.
package until

import (
	"context"
	"errors"
	"io"
	"os"
	"time"
)

// Write writes p to w, and stops when ctx ends. It returns how many bytes were written, and the cause
// of ctx if that ended first. Write cannot interrupt a w without SetWriteDeadline. Do not
// call it for the same w twice at a time. It removes the write deadline of w.
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

// Ends calls f, and makes it fail when ctx ends. The function set must set the deadline after which
// f fails with os.ErrDeadlineExceeded. Ends returns the cause of ctx in place of that error.
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
