package vm

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
	collectWithin = 2 * time.Second        // for the rest of what a crashing guest prints, in the machine's time
	settle        = 200 * time.Millisecond // of silence, after which the guest is taken to have finished
)

// collect waits until a guest that crashes has printed the rest of its crash, such as a trace. One goroutine
// does so for all: every call that reports the crash waits for collected, so that every error, the
// Report and the record have the whole of it.
func (v *VM) collect() {
	defer close(v.collected)
	select {
	case <-v.Console.Crashed():
		v.waitSilent(context.Background())
	case <-v.Drained:
	}
}

// waitSilent waits until the guest is silent and idle, for at most collectWithin of the machine's time: on a
// busy host, a guest may stand still in the middle of a trace.
func (v *VM) waitSilent(ctx context.Context) {
	ctx, cancel := v.Within(ctx, collectWithin)
	defer cancel()
	tick := time.NewTicker(machinetime.Tick)
	defer tick.Stop()
	length, since := v.Console.Len(), v.Clock.Now()
	for {
		select {
		case <-v.Drained:
			return
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := v.Clock.Now()
		switch l := v.Console.Len(); {
		case l != length || now.Runnable:
			length, since = l, now
		case now.Machine-since.Machine >= settle:
			return
		}
	}
}

// CrashCollected returns a channel that is closed when the whole text of a crash is in the log, or when the console
// has ended without a crash.
func (v *VM) CrashCollected() <-chan struct{} { return v.collected }

// Crashed returns the error of a guest that has crashed, nil of any other.
func (v *VM) Crashed() error {
	if crash := v.Console.Crash(); crash != "" {
		return guestfault.New(crash)
	}
	return nil
}

// AwaitCrash waits, if the guest has crashed or the newest text may be the beginning of a crash, until that
// is known and the whole text is in the log, or until ctx ends.
func (v *VM) AwaitCrash(ctx context.Context) {
	if v.Console.Suspicious() {
		v.waitSilent(ctx)
	}
	if v.Crashed() != nil {
		v.AwaitCrashText(ctx)
	}
}

// AwaitCrashText waits until the whole text of a crash is in the log, or until ctx ends.
func (v *VM) AwaitCrashText(ctx context.Context) {
	select {
	case <-v.collected:
	case <-ctx.Done():
	}
}

// OrCrash returns the crash that explains the error of a call to the guest, or the error if the guest has
// not crashed.
func (v *VM) OrCrash(ctx context.Context, err error) error {
	if errors.Is(err, agent.ErrLineEnded) { // the console may hold a crash that has not been read yet
		select {
		case <-v.Drained:
		case <-ctx.Done():
		}
	}
	return cmp.Or(v.Crashed(), err)
}

// UnlessCrashed returns a context that also ends when the guest has crashed and the whole text of the crash
// is in the log. The crash is its cause then.
func (v *VM) UnlessCrashed(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		select {
		case <-v.collected:
			if err := v.Crashed(); err != nil {
				cancel(err)
			}
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(context.Canceled) }
}
