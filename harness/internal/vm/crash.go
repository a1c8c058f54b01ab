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
	collectWithin = 2 * time.Second        // bounds the wait for the rest of a crash, in the machine's time
	settle        = 200 * time.Millisecond // a guest that is silent for so long has printed the rest of its crash
)

// collect waits until a guest that crashes has printed the rest of its crash, such as a trace, and closes
// collected. Every call that reports the crash waits for collected, so that every error, the Report and
// the record have the complete crash.
func (v *VM) collect() {
	defer close(v.collected)
	select {
	case <-v.Console.Crashed():
		v.waitSilent(context.Background())
	case <-v.Drained:
	}
}

// waitSilent waits until the guest is silent and QEMU is idle, for at most collectWithin of the machine's
// time. Silence alone is not enough: on a busy host, QEMU may wait for a processor in the middle of a
// trace.
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

// CrashCollected returns a channel that is closed when the complete text of a crash is in the log, or when
// the console has ended without a crash.
func (v *VM) CrashCollected() <-chan struct{} { return v.collected }

// Crashed returns an error that quotes the crash of the guest, or nil if the guest has not crashed.
func (v *VM) Crashed() error {
	if crash := v.Console.Crash(); crash != "" {
		return guestfault.New(crash)
	}
	return nil
}

// AwaitCrash waits until the complete text of a crash is in the log, or until ctx ends. If the newest text
// may be the beginning of a crash, it first waits until the guest is silent. It returns at once if
// the text shows no sign of a crash.
func (v *VM) AwaitCrash(ctx context.Context) {
	if v.Console.Suspicious() {
		v.waitSilent(ctx)
	}
	if v.Crashed() != nil {
		v.AwaitCrashText(ctx)
	}
}

// AwaitCrashText waits until the complete text of a crash is in the log, or until ctx ends. Call it only
// after a crash.
func (v *VM) AwaitCrashText(ctx context.Context) {
	select {
	case <-v.collected:
	case <-ctx.Done():
	}
}

// OrCrash returns the error of Crashed if the guest has crashed, and err if it has not. It is for the
// error of a call to the guest, which a crash may have caused.
func (v *VM) OrCrash(ctx context.Context, err error) error {
	if errors.Is(err, agent.ErrLineEnded) { // the end of the console's output may show a crash
		select {
		case <-v.Drained:
		case <-ctx.Done():
		}
	}
	return cmp.Or(v.Crashed(), err)
}

// UnlessCrashed returns a context that also ends when the complete text of a crash is in the log. Its cause
// is then the error of Crashed.
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
