package harness

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"guesthouse.example/harness/internal/qemu"
	"guesthouse.example/internal/printable"
)

// prefetch restores a machine before anybody asks for it. It stands still, so that it
// takes no processor time and grows no older, no port leads to it, and its record is in
// memory: should this process die there is nothing but QEMU, which dies with it.
func (p *plan) prefetch(ctx context.Context, t *Template) (*Machine, error) {
	if t.Agent == nil {
		return nil, errNoAgent // who else gives it a clock and entropy when it goes on?
	}
	q := *p
	q.spec.Dir, q.spec.Ports, q.qemu.Forwards = "", nil, nil
	ram, state, err := t.open()
	if err != nil {
		return nil, err
	}
	defer ram.Close()
	defer state.Close()
	rec := startRecord()
	m, err := q.spawn(q.qemu.Args(qemu.RestoreRAM(t.Version)), rec, t, ram, state)
	if err != nil {
		return nil, err
	}
	m.waits = true
	if err = m.connect(ctx, t); err == nil {
		err = m.rehearse(ctx)
	}
	if err == nil {
		// The rehearsal's port closes, and programs go on only in the machine that is handed out.
		_, err = m.quiesce(ctx, &resumption{})
	}
	if err == nil {
		err = m.qmp.Execute(ctx, "stop", nil, nil)
	}
	if err != nil {
		m.discard()
		said, _, _ := strings.Cut(rec.stderrText(), "\n")
		return nil, fmt.Errorf("%w %s", err, printable.Text(said))
	}
	return m, nil
}

// uselessError says why a prefetched machine was none that can be handed out.
type uselessError struct{ err error }

func (e uselessError) Error() string {
	return "the machine that waited was of no use: " + oneLine(e.err)
}

// handOut makes a prefetched machine that of a plan with the same template, which
// somebody has just asked for: it gets a record, goes on, and before the first port is
// forwarded its entropy, clock and identity are new again. After an error it has ended;
// after a uselessError another one serves as well.
func (m *Machine) handOut(ctx context.Context, p *plan, asked time.Time) error {
	if err := m.gone(); err != nil {
		m.discard()
		return uselessError{err}
	}
	if err := m.record.open(p.spec.Dir, p.spec, m.proc.CommandLine()); err != nil {
		m.discard()
		return fmt.Errorf("boot %s: %w", p.spec.Target, err)
	}
	if !slices.Equal(m.plan.spec.Crashes, p.spec.Crashes) {
		m.console.SetCrashes(p.crashes)
	}
	m.waits = false
	m.plan, m.asked, m.result = p, asked, p.result(m.proc, "prefetched", "")
	m.result.QEMU = m.qmp.Version()
	m.begin = m.clock.Now()
	m.writeResult(func(*Result) {})
	if err := m.goOn(ctx); err != nil {
		if ctx.Err() != nil {
			go m.hash()
			return m.giveUp(ctx, err)
		}
		m.discard()
		return uselessError{fmt.Errorf("it did not go on: %w", err)}
	}
	go m.hash()
	go m.watch()
	return nil
}

// gone says why a prefetched machine does not wait any more; nil if it does.
func (m *Machine) gone() error {
	select {
	case <-m.proc.Done: // somebody has killed it
		return m.proc.Describe()
	case <-m.agent.Done():
		return m.agent.Err()
	default:
	}
	if crash := m.console.Crash(); crash != "" {
		return errors.New(printable.Text(crash))
	}
	return nil
}

// goOn lets a machine run that stood still, and makes it itself again.
func (m *Machine) goOn(ctx context.Context) error {
	ctx, cancel := m.clock.WithDeadline(ctx, m.begin, monitorWithin, fmt.Errorf("not within %v", monitorWithin))
	defer cancel()
	if err := m.qmp.Execute(ctx, "cont", nil, nil); err != nil {
		return err
	}
	var err error
	m.forwards, err = m.forward(ctx, m.plan.qemu.Forwards, func() error {
		return m.reseed(ctx)
	})
	return err
}

// discard ends a machine that was never handed out, and leaves nothing of it but a record
// that somebody has asked for.
func (m *Machine) discard() {
	m.proc.Kill()
	<-m.drained
	<-m.agent.Done()
	m.filter.Wait()
	if m.qmp != nil {
		<-m.qmp.Done()
	}
	m.record.close(false)
}
