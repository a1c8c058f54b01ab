package machinetime

import (
	"context"
	"fmt"
	"time"
)

// wallFactor times the length of a deadline is its limit on the wall clock.
const wallFactor = 10

// WithDeadline returns a context that ends when d of the machine's time, or ten times d on the wall
// clock, has passed since a moment. Its cause then wraps cause, and has the time on the wall clock if
// the host was busy.
func (c *Clock) WithDeadline(ctx context.Context, from Moment, d time.Duration, cause error) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		tick := time.NewTicker(Tick)
		defer tick.Stop()
		c.Now() // a gap before this deadline is no suspension
		c.countDeadlines(1)
		defer c.countDeadlines(-1)
		for {
			now := c.Now()
			took := now.Wall - from.Wall
			if now.Machine-from.Machine >= d || took >= wallFactor*d {
				if took > d+d/10+Tick {
					cause = fmt.Errorf("%w (%v on this loaded host)", cause, took.Round(time.Second/10))
				}
				cancel(cause)
				return
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	}()
	return ctx, func() { cancel(context.Canceled) }
}

func (c *Clock) countDeadlines(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadlines += n
}

// WithTimeout is WithDeadline from the present moment. The cause wraps context.DeadlineExceeded.
func (c *Clock) WithTimeout(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	return c.WithDeadline(ctx, c.Now(), d, timeoutError(d))
}

// A timeoutError says that a duration of the machine's time has passed.
type timeoutError time.Duration

func (e timeoutError) Error() string {
	return fmt.Sprintf("not within %v of the machine's time", time.Duration(e))
}

func (e timeoutError) Unwrap() error { return context.DeadlineExceeded }
