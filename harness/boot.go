package harness

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"guesthouse.example/harness/console"
	"guesthouse.example/harness/internal/agent"
	"guesthouse.example/harness/internal/guestconn"
	"guesthouse.example/harness/internal/machinetime"
	"guesthouse.example/harness/internal/qemu"
	"guesthouse.example/harness/internal/qmp"
	"guesthouse.example/internal/printable"
	"guesthouse.example/internal/regular"
	"guesthouse.example/internal/testcache"
)

// monitorWithin bounds QEMU's own start, up to its answer on the monitor, in the
// machine's time.
const monitorWithin = 30 * time.Second

// Boot starts the machine of a Spec and waits until it is ready. The context
// bounds the boot, not the machine's life; Close ends it. An error
// that comes from a machine that was started is a *BootError.
func Boot(ctx context.Context, s Spec) (*Machine, error) {
	m, err := Start(ctx, s)
	if err != nil {
		return nil, err
	}
	if err := m.WaitReady(ctx); err != nil {
		m.closeWithin(ctx)
		return nil, err
	}
	return m, nil
}

// Start starts a machine and returns while it boots, for those who want to see
// or to use its console meanwhile. WaitReady waits for the rest of what Boot
// does.
func Start(ctx context.Context, s Spec) (*Machine, error) {
	p, err := s.prepare(ctx)
	if err != nil {
		return nil, err
	}
	why := ""
	if s.Template != nil {
		m, err := p.restored(ctx, s.Template, "")
		if err == nil || ctx.Err() != nil {
			return m, err
		}
		why = oneLine(err)
	}
	return p.launch(ctx, nil, why)
}

// prepare checks a Spec, finds its QEMU and settles the acceleration.
func (s Spec) prepare(ctx context.Context) (*plan, error) {
	p, err := s.check()
	if err != nil {
		return nil, fmt.Errorf("boot: %w", err)
	}
	if err := p.findQEMU(); err != nil {
		return nil, err
	}
	p.noteInputs()
	if err := p.chooseAccel(ctx, hostKVM); err != nil {
		return nil, err
	}
	if err := qemu.ProbeSandbox(ctx, p.qemu.Binary); err != nil {
		return nil, fmt.Errorf("boot %s: %w", p.spec.Target, err)
	}
	return p, nil
}

// noteInputs tells go's cache of test results what this test depends on, besides QEMU.
func (p *plan) noteInputs() {
	if !testcache.Active() {
		return
	}
	for _, file := range []string{p.spec.Kernel, p.spec.Initramfs} {
		// What bears its hash as its name cannot change, and a cache renews its time.
		if sum, err := regular.SHA256(file); file != "" && (err != nil || !strings.Contains(filepath.Base(file), sum)) {
			testcache.Depends(file)
		}
	}
	if p.spec.Template != nil {
		testcache.Depends(filepath.Join(p.spec.Template.dir, templateName), filepath.Join(p.spec.Template.dir, stateName), filepath.Join(p.spec.Template.dir, ramName))
	}
	if len(p.spec.QEMUArgs) > 0 {
		testcache.Never() // they may name files
	}
}

// restored restores the machine from a template. The reason is why it was not prefetched
// when it could have been.
func (p *plan) restored(ctx context.Context, t *Template, why string) (*Machine, error) {
	if err := t.fits(p); err != nil {
		return nil, err
	}
	m, err := p.launch(ctx, t, why)
	if failed := (*BootError)(nil); errors.As(err, &failed) && ctx.Err() == nil {
		said, _, _ := strings.Cut(failed.Stderr, "\n")
		return nil, fmt.Errorf("restoring it failed: %w %s", failed.Err, printable.Text(said))
	}
	return m, err
}

func oneLine(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }

// launch starts QEMU, to boot or to restore a template, and lets the machine run.
// The reason is why it boots or is restored when there could have been a faster way.
func (p *plan) launch(ctx context.Context, t *Template, why string) (*Machine, error) {
	how, kind, asked := "cold", qemu.OwnRAM, time.Now()
	var ram, state *os.File
	var err error
	if t != nil {
		select {
		case restoring <- struct{}{}:
			defer func() { <-restoring }()
		case <-ctx.Done():
			return nil, fmt.Errorf("boot %s: %w", p.spec.Target, context.Cause(ctx))
		}
		how, kind = "restored", qemu.RestoreRAM(t.Version)
		if ram, state, err = t.open(); err != nil {
			return nil, err
		}
		defer state.Close()
	} else if p.savable() {
		// Without it the machine can do all but be saved.
		if ram, err = qemu.NewRAM(p.spec.Memory); err == nil {
			kind = qemu.SharedRAM
		}
	}
	owned := false
	defer func() {
		if !owned && ram != nil {
			ram.Close()
		}
	}()
	args := p.qemu.Args(kind)
	rec, err := newRecord(p.spec.Dir, p.spec, append([]string{p.qemu.Binary}, args...))
	if err != nil {
		return nil, fmt.Errorf("boot %s: %w", p.spec.Target, err)
	}
	m, err := p.spawn(args, rec, t, ram, state)
	if err != nil {
		rec.close(false)
		return nil, fmt.Errorf("boot %s: %w", p.spec.Target, err)
	}
	m.asked, m.result = asked, p.result(m.proc, how, why)
	if kind == qemu.SharedRAM {
		m.ram, owned = ram, true // until Close
	}
	m.writeResult(func(*Result) {})
	go m.hash()
	if err := m.connect(ctx, t); err != nil {
		return nil, m.giveUp(ctx, err)
	}
	go m.watch()
	return m, nil
}

// giveUp ends a machine that nobody watches yet, and returns the error that says why.
func (m *Machine) giveUp(ctx context.Context, err error) error {
	m.proc.Kill()
	<-m.drained
	<-m.agent.Done()
	m.filter.Wait()
	m.fail(err, !errors.Is(ctx.Err(), context.Canceled))
	close(m.ended)
	boot := m.bootError(err)
	m.closeWithin(ctx)
	return boot
}

// result is that of a machine that has just been asked for.
func (p *plan) result(proc *qemu.Process, how, why string) Result {
	return Result{PID: proc.PID(), State: "booting", Test: p.spec.Test, Target: p.spec.Target, Boot: how, Why: why,
		Accel: p.accel.accel, AccelWhy: p.accel.why, AccelEvidence: p.accel.evidence}
}

// spawn starts QEMU, whose machine stands still, and reads what comes from it.
func (p *plan) spawn(args []string, rec *record, t *Template, ram, state *os.File) (*Machine, error) {
	proc, err := p.qemu.Start(args, &rec.stderr, ram, state)
	if err != nil {
		return nil, err
	}
	var saved *agent.Saved
	if t != nil {
		saved = t.Agent
	}
	m := &Machine{
		plan: p, proc: proc, record: rec,
		agent:     agent.New(proc.Agent, &stampedLines{file: &rec.agent, start: rec.start}, saved),
		clock:     machinetime.New(proc.PID(), proc.Done, rec.start),
		migration: make(chan string, 16),
		saving:    make(chan struct{}, 1),
		drained:   make(chan struct{}),
		collected: make(chan struct{}),
		hashed:    make(chan struct{}),
		ended:     make(chan struct{}),
	}
	if err := m.filterNetwork(); err != nil {
		proc.Kill()
		return nil, err
	}
	m.life = guestconn.NewLife(m.ending)
	options := console.Options{
		Record:  printable.NewWriter(&stampedLines{file: &rec.console, start: rec.start}),
		Crashes: p.crashes, CrashComplete: m.collected,
	}
	if t != nil {
		options.State = &t.Console
	}
	m.console = console.New(proc.Console, options)
	go m.collect()
	go m.agent.Listen()
	go func() {
		<-m.console.Done()
		proc.Console.Close()
		close(m.drained)
	}()
	return m, nil
}

// connect takes control of the stopped machine, restores it if it has a template,
// learns its ports and lets it run.
func (m *Machine) connect(ctx context.Context, t *Template) error {
	ctx, cancel := m.clock.WithDeadline(ctx, machinetime.Moment{}, monitorWithin, fmt.Errorf("QEMU's monitor did not answer within %v", monitorWithin))
	defer cancel()
	var err error
	m.qmp, err = qmp.New(ctx, m.proc.Monitor, &m.record.qmp, func(e qmp.Event) {
		switch e.Name {
		case "SHUTDOWN":
			m.shutdown.Store(string(e.Data))
		case "MIGRATION":
			var data struct{ Status string }
			json.Unmarshal(e.Data, &data) // what has none is no news
			select {
			case m.migration <- data.Status:
			default: // nobody waits
			}
		}
	})
	if err == nil {
		m.resultMu.Lock()
		m.result.QEMU = m.qmp.Version() // which is recorded with what comes next
		m.resultMu.Unlock()
	}
	switch {
	case err != nil:
	case t != nil:
		err = m.restore(ctx, t)
	default:
		var table string
		if err = m.qmp.ExecuteAll(ctx, usernet(&table)); err == nil {
			m.forwards, err = qemu.ReadForwards(table, m.plan.qemu.Forwards)
		}
		if err == nil {
			err = m.qmp.Execute(ctx, "cont", nil, nil)
		}
	}
	if errors.Is(err, qmp.ErrClosed) && !isTemplateFault(err) {
		if err := m.processEnd(ctx); err != nil {
			return err
		}
		return fmt.Errorf("QEMU did not start: %w", m.proc.Describe())
	}
	return err
}

// processEnd waits for the end of a QEMU whose monitor has ended.
func (m *Machine) processEnd(ctx context.Context) error {
	select {
	case <-m.proc.Done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("QEMU's monitor has ended and QEMU has not: %w", context.Cause(ctx))
	}
}

// WaitReady waits until the console has shown Ready. It fails when the first
// byte or Ready is late, when the guest crashes or ends, when a file of the record cannot
// be written, and when ctx ends. Its error is a *BootError.
func (m *Machine) WaitReady(ctx context.Context) error {
	whole, cancel := m.record.unlessBroken(ctx)
	defer cancel()
	err := m.waitReady(whole)
	if err == nil {
		err = m.record.failure() // while it became ready
	}
	if err == nil && m.crashed() != nil { // and was ready all the same
		m.awaitCrash(ctx)
		err = m.crashed()
	}
	if t := m.template.Swap(nil); t != nil {
		if err == nil {
			err = m.become(ctx, t)
		}
		t.close()
	}
	if err != nil {
		m.awaitCrash(ctx)
		// That somebody changed their mind is no failure.
		if !errors.Is(ctx.Err(), context.Canceled) && !errors.Is(err, guestconn.ErrClosed) {
			m.writeResult(func(r *Result) { r.State, r.Error = "failed", err.Error() })
		}
		return m.bootError(err)
	}
	seconds := time.Since(m.asked).Seconds()
	<-m.hashed
	m.writeResult(func(r *Result) { r.State, r.ReadySeconds = "ready", seconds })
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
	firstCtx, cancel := m.clock.WithDeadline(ctx, m.begin, m.plan.spec.FirstByteWithin, first)
	defer cancel()
	if err := m.console.WaitByte(firstCtx); err != nil {
		return m.whyNotReady(err)
	}
	shown := fmt.Errorf("its console has not shown %q", m.plan.spec.Ready)
	late := fmt.Errorf("%w: not ready within %v: %w", ErrGuest, m.plan.spec.ReadyWithin, shown)
	readyCtx, cancel := m.clock.WithDeadline(ctx, m.begin, m.plan.spec.ReadyWithin, late)
	defer cancel()
	readyCtx, cancel = m.clock.WithWatchdog(readyCtx, m.plan.spec.ReadyWithin/hangsAfter, m.console.Len, shown)
	defer cancel()
	_, at, err := m.console.WaitFor(readyCtx, m.plan.spec.Ready, 0)
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
	_, _, err := m.console.WaitFor(promptCtx, regexp.QuoteMeta(guestPrompt), from)
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
	if why := m.agent.PowerOffReason(); why != "" {
		err = fmt.Errorf("%w: %s", err, printable.Text(why))
	} else if m.exit != nil {
		err = fmt.Errorf("%w: its program has ended: %v", err, m.exit)
	}
	return err
}
