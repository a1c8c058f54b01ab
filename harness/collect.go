package harness

import (
	"cmp"
	"context"
	"errors"
	"time"

	"guesthouse.example/harness/internal/agent"
	"guesthouse.example/harness/internal/guestfault"
	"guesthouse.example/harness/internal/machinetime"
)

const (
	collectWithin = 2 * time.Second        // bounds how long the rest of a failing guest's words is waited for
	settle        = 200 * time.Millisecond // of silence, after which the guest is taken to have finished
)

// collect waits for the rest of what a guest has to say when it was seen to crash, its trace for
// example. It belongs to the seeing and not to one of those who ask: whoever tells of the crash,
// and Close, waits for collected, so that every error, the Report and the record have all of it.
func (v *vm) collect() {
	defer close(v.collected)
	select {
	case <-v.console.Crashed():
		v.untilSilent(context.Background())
	case <-v.drained:
	}
}

// untilSilent waits until the guest is silent and does nothing, at most collectWithin, of the
// machine's time, as a busy host may let it stand still in the middle of a trace.
func (v *vm) untilSilent(ctx context.Context) {
	ctx, cancel := v.within(ctx, collectWithin)
	defer cancel()
	tick := time.NewTicker(machinetime.Tick)
	defer tick.Stop()
	length, since := v.console.Len(), v.clock.Now()
	for {
		select {
		case <-v.drained:
			return
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := v.clock.Now()
		switch l := v.console.Len(); {
		case l != length || now.Runnable:
			length, since = l, now
		case now.Machine-since.Machine >= settle:
			return
		}
	}
}

// crashed returns the error of a guest that was seen to crash, nil of any other.
func (v *vm) crashed() error {
	if crash := v.console.Crash(); crash != "" {
		return guestfault.New(crash)
	}
	return nil
}

// awaitCrash waits for the rest of a crash that was seen, and where the newest text may be the
// begin of one until that is known. It does not wait beyond ctx.
func (v *vm) awaitCrash(ctx context.Context) {
	if v.console.Suspicious() {
		v.untilSilent(ctx)
	}
	if v.crashed() != nil {
		v.awaitCollected(ctx)
	}
}

// awaitCollected waits until all that the guest says about its crash is in the log, or until ctx ends.
func (v *vm) awaitCollected(ctx context.Context) {
	select {
	case <-v.collected:
	case <-ctx.Done():
	}
}

// orCrash returns the crash that explains the error of a conversation with the guest, or the
// error where there is none.
func (v *vm) orCrash(ctx context.Context, err error) error {
	if errors.Is(err, agent.ErrLineEnded) { // the crash may not have been read yet
		select {
		case <-v.drained:
		case <-ctx.Done():
		}
	}
	return cmp.Or(v.crashed(), err)
}

// unlessCrashed returns a context that ends when the guest has crashed and the rest of what it
// says about that is in the log; the crash is its cause then.
func (v *vm) unlessCrashed(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		select {
		case <-v.collected:
			if err := v.crashed(); err != nil {
				cancel(err)
			}
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(context.Canceled) }
}
