package harness

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"time"

	"guesthouse.example/harness/console"
	"guesthouse.example/harness/internal/agent"
	"guesthouse.example/harness/internal/guestconn"
	"guesthouse.example/internal/initramfs"
	"guesthouse.example/internal/printable"
)

// WaitReady waits until the console has matched Spec.Ready, after Spec.Program was started if there is one.
// It fails if the first byte or the match is late, if the program cannot be started, if the guest crashes
// or ends, if a file of the record cannot be written, or if ctx ends. Its error is a *BootError.
func (m *Machine) WaitReady(ctx context.Context) error {
	recordCtx, cancel := m.vm.Record.WithFailure(ctx)
	defer cancel()
	err := m.withPlaces(ctx, m.waitReady(recordCtx))
	if err == nil {
		err = m.vm.Record.Failure() // a file may have failed after the console matched
	}
	if err == nil && m.vm.Crashed() != nil { // the guest crashed and matched Ready all the same
		m.vm.AwaitCrash(ctx)
		err = m.vm.Crashed()
	}
	if t := m.template.Swap(nil); t != nil {
		if err == nil {
			err = m.saveTemplate(ctx, t)
		}
		t.Close()
	}
	if err == nil && m.delivery == nil {
		err = m.mountShares(ctx) // after the save, so that the template serves machines with other shares
	}
	if err != nil {
		m.vm.AwaitCrash(ctx)
		// A cancelled context and a Close are no failures of the run.
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

// saveTemplate saves the ready machine as a template of the cache. If the machine cannot be saved, the
// Result says why, and there is no error.
func (m *Machine) saveTemplate(ctx context.Context, t *pendingTemplate) error {
	unsaved, err := t.finish(ctx, m)
	if err != nil {
		return err
	}
	m.writeResult(func(r *Result) {
		switch {
		case unsaved != "":
			r.Why = unsaved
		case m.delivery != nil && m.delivery.unsaved != "":
			r.Why += ", saved for the next; of its platform: " + m.delivery.unsaved
		default:
			r.Why += ", saved for the next"
		}
	})
	return nil
}

func (m *Machine) waitReady(ctx context.Context) error {
	first := &lateError{fmt.Sprintf("no byte on its console within %v", m.plan.spec.FirstByteWithin)}
	firstCtx, cancel := m.vm.Clock.WithDeadline(ctx, m.begin, m.plan.spec.FirstByteWithin, first)
	defer cancel()
	if err := m.vm.Console.WaitByte(firstCtx); err != nil {
		return m.whyNotReady(err)
	}
	from, err := m.awaitProgram(ctx)
	if err != nil {
		return m.whyNotReady(err)
	}
	readyCtx, cancel := m.untilReady(ctx, from, m.plan.spec.Ready)
	defer cancel()
	pattern := m.plan.spec.Ready
	if pattern == DefaultReady && m.plan.spec.Program == "" {
		pattern += "|" + PlatformReady
	}
	if err := m.stopAutoboot(readyCtx); err != nil {
		return m.whyNotReady(err)
	}
	match, at, err := m.vm.Console.WaitFor(readyCtx, pattern, 0)
	if err == nil && pattern != m.plan.spec.Ready && match[0] == initramfs.Ready {
		return fmt.Errorf("the initramfs %s is a platform, which has no guest program: name one in Spec.Program, or set Spec.Ready to harness.PlatformReady",
			m.plan.spec.Initramfs)
	}
	if err == nil && m.plan.spec.Ready == DefaultReady {
		err = m.waitPrompt(readyCtx, at)
	}
	return m.whyNotReady(err)
}

// stopAutoboot stops the countdown of a boot loader.
func (m *Machine) stopAutoboot(ctx context.Context) error {
	if !m.plan.stopsAutoboot() || m.Result().Boot != BootCold {
		return nil
	}
	ready := m.plan.spec.Ready
	match, _, err := m.vm.Console.WaitFor(ctx, "("+m.plan.board.Autoboot+")|"+ready, 0)
	if err == nil && match[1] != "" {
		err = m.vm.Console.Type(ctx, []byte(" "))
	}
	return err
}

// hangsAfter is the part of ReadyWithin for which a guest may print nothing, and be mostly idle or spin, before
// the watchdog reports that it hangs.
const hangsAfter = 4

// promptWithin bounds the wait for the prompt below the line that DefaultReady matches, in the machine's time.
// guest.Main writes both at once.
const promptWithin = 2 * time.Second

// waitPrompt waits for the prompt after the offset from of the console, below the match of DefaultReady. If
// a test typed before the guest printed the prompt, the echo would be above the prompt, and the first line
// of the answer beside it. A kernel message may split the prompt, and another guest that prints the line
// of DefaultReady may have no prompt; the machine is then ready after promptWithin.
func (m *Machine) waitPrompt(ctx context.Context, from int64) error {
	promptCtx, cancel := m.Within(ctx, promptWithin)
	defer cancel()
	_, _, err := m.vm.Console.WaitFor(promptCtx, regexp.QuoteMeta(guestPrompt), from)
	if err != nil && promptCtx.Err() != nil && ctx.Err() == nil {
		return nil
	}
	return err
}

// whyNotReady replaces the error of a console or of an agent's line that has ended by the reason for the
// machine's end. It returns any other error, and nil, unchanged.
func (m *Machine) whyNotReady(err error) error {
	if !errors.Is(err, console.ErrEnded) && !errors.Is(err, agent.ErrLineEnded) {
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
