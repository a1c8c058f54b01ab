package harness

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"time"

	"guesthouse.example/harness/console"
	"guesthouse.example/harness/internal/guestconn"
	"guesthouse.example/internal/printable"
)

// WaitReady waits until the console has shown Ready. It fails when the first
// byte or Ready is late, when the guest crashes or ends, when a file of the record cannot
// be written, and when ctx ends. Its error is a *BootError.
func (m *Machine) WaitReady(ctx context.Context) error {
	whole, cancel := m.vm.Record.WithFailure(ctx)
	defer cancel()
	err := m.waitReady(whole)
	if err == nil {
		err = m.vm.Record.Failure() // while it became ready
	}
	if err == nil && m.vm.Crashed() != nil { // and was ready all the same
		m.vm.AwaitCrash(ctx)
		err = m.vm.Crashed()
	}
	if t := m.template.Swap(nil); t != nil {
		if err == nil {
			err = m.become(ctx, t)
		}
		t.Close()
	}
	if err != nil {
		m.vm.AwaitCrash(ctx)
		// That somebody changed their mind is no failure.
		if !errors.Is(ctx.Err(), context.Canceled) && !errors.Is(err, guestconn.ErrClosed) {
			m.writeResult(func(r *Result) { r.State, r.Error = StateFailed, err.Error() })
		}
		return m.bootError(err)
	}
	seconds := time.Since(m.began).Seconds()
	<-m.hashed
	m.writeResult(func(r *Result) { r.State, r.ReadySeconds = StateReady, seconds })
	return nil
}

// become saves the machine that is ready as a template of the cache. That it could not be saved
// is no error.
func (m *Machine) become(ctx context.Context, t *making) error {
	why, err := t.finish(ctx, m)
	if err == nil {
		m.writeResult(func(r *Result) { r.Why = why })
	}
	return err
}

func (m *Machine) waitReady(ctx context.Context) error {
	first := fmt.Errorf("no byte on its console within %v", m.plan.spec.FirstByteWithin)
	firstCtx, cancel := m.vm.Clock.WithDeadline(ctx, m.begin, m.plan.spec.FirstByteWithin, first)
	defer cancel()
	if err := m.vm.Console.WaitByte(firstCtx); err != nil {
		return m.whyNotReady(err)
	}
	shown := fmt.Errorf("its console has not shown %q", m.plan.spec.Ready)
	late := fmt.Errorf("%w: not ready within %v: %w", ErrGuest, m.plan.spec.ReadyWithin, shown)
	readyCtx, cancel := m.vm.Clock.WithDeadline(ctx, m.begin, m.plan.spec.ReadyWithin, late)
	defer cancel()
	readyCtx, cancel = m.vm.Clock.WithWatchdog(readyCtx, m.plan.spec.ReadyWithin/hangsAfter, m.vm.Console.Len, shown)
	defer cancel()
	_, at, err := m.vm.Console.WaitFor(readyCtx, m.plan.spec.Ready, 0)
	if err == nil && m.plan.spec.Ready == DefaultReady {
		err = m.waitPrompt(readyCtx, at)
	}
	return m.whyNotReady(err)
}

// hangsAfter is the part of ReadyWithin for which a guest may print nothing and be mostly idle before
// the watchdog reports that it hangs.
const hangsAfter = 4

// promptWithin bounds the wait for the prompt that stands below guest.Main's word, in the
// machine's time. Main writes both at once.
const promptWithin = 2 * time.Second

// waitPrompt waits for the prompt below DefaultReady, which begins at an offset. The echo of a
// line that is typed before would stand above the prompt, and the first line of its answer beside
// it. A kernel message may split the prompt, and a guest that prints the words itself may have
// none: such a machine is ready after promptWithin.
func (m *Machine) waitPrompt(ctx context.Context, from int64) error {
	promptCtx, cancel := m.Within(ctx, promptWithin)
	defer cancel()
	_, _, err := m.vm.Console.WaitFor(promptCtx, regexp.QuoteMeta(guestPrompt), from)
	if err != nil && promptCtx.Err() != nil && ctx.Err() == nil {
		return nil
	}
	return err
}

// whyNotReady says of a console that ended how the machine did.
func (m *Machine) whyNotReady(err error) error {
	if !errors.Is(err, console.ErrEnded) {
		return err
	}
	<-m.ended
	if _, ok := m.err.(*ExitError); ok {
		return fmt.Errorf("its console has not shown %q: %w", m.plan.spec.Ready, m.err)
	}
	if m.err != nil {
		return m.err
	}
	if m.closing.Load() {
		return guestconn.ErrClosed
	}
	err = fmt.Errorf("%w: it powered off before its console showed %q", ErrGuest, m.plan.spec.Ready)
	if why := m.vm.Agent.PowerOffReason(); why != "" {
		err = fmt.Errorf("%w: %s", err, printable.Text(why))
	} else if m.exit != nil {
		err = fmt.Errorf("%w: its program has ended: %v", err, m.exit)
	}
	return err
}
