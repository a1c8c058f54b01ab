package harness

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"guesthouse.example/harness/internal/machinetime"
	"guesthouse.example/harness/internal/qemu"
	"guesthouse.example/harness/internal/records"
	"guesthouse.example/harness/internal/template"
	"guesthouse.example/internal/printable"
)

// prefetch restores a machine before anybody asks for it. It stands still, so that it
// takes no processor time and grows no older, no port leads to it, and its record is in
// memory: should this process die there is nothing but QEMU, which dies with it.
func (p *plan) prefetch(ctx context.Context, t *template.Template) (*vm, error) {
	if t.Agent == nil {
		return nil, errNoAgent // who else gives it a clock and entropy when it goes on?
	}
	ram, state, err := t.OpenFiles()
	if err != nil {
		return nil, err
	}
	defer ram.Close()
	defer state.Close()
	rec := records.New()
	v, err := p.start(p.qemu.Args(qemu.RestoreRAM(t.Version)), rec, t, ram, state)
	if err != nil {
		return nil, err
	}
	if _, err = v.connect(ctx, t, nil, true); err == nil {
		err = v.rehearse(ctx)
	}
	if err == nil {
		// The rehearsal's port closes, and programs go on only in the machine that is handed out.
		_, err = v.quiesce(ctx, &resumption{})
	}
	if err == nil {
		err = v.qmp.Execute(ctx, "stop", nil, nil)
	}
	if err != nil {
		v.Discard()
		said, _, _ := strings.Cut(rec.StderrText(), "\n")
		return nil, fmt.Errorf("%w %s", err, printable.Text(said))
	}
	return v, nil
}

// adopt makes the plan's machine of a prefetched vm with the same template. The vm gets a record and goes
// on, and it has new entropy, the clock and a new identity before the first port is forwarded. After an error the
// vm has ended. After an unusableError another vm may serve.
func (p *plan) adopt(ctx context.Context, v *vm) (*Machine, error) {
	if err := v.gone(); err != nil {
		v.Discard()
		return nil, unusableError{err}
	}
	if err := v.record.Open(p.spec.Dir, p.spec, v.proc.CommandLine()); err != nil {
		v.Discard()
		return nil, fmt.Errorf("boot %s: %w", p.spec.Target, err)
	}
	if !slices.Equal(v.crashes, p.spec.Crashes) {
		v.crashes = p.spec.Crashes
		v.console.SetCrashes(p.crashes)
	}
	m := p.machine(v, BootPrefetched, "")
	m.begin = v.clock.Now()
	m.noteVersion()
	m.writeResult(func(*Result) {})
	var err error
	if m.forwards, err = v.goOn(ctx, m.begin, p.qemu.Forwards); err != nil {
		if ctx.Err() != nil {
			go m.hash()
			return nil, m.giveUp(ctx, err)
		}
		v.Discard()
		return nil, unusableError{fmt.Errorf("it did not go on: %w", err)}
	}
	go m.hash()
	go m.watch()
	return m, nil
}

// An unusableError says why a prefetched vm cannot become anybody's machine.
type unusableError struct{ err error }

func (e unusableError) Error() string {
	return "the machine that waited was of no use: " + oneLine(e.err)
}

// goOn lets a vm run that stood still, reseeds its guest and forwards ports to it.
func (v *vm) goOn(ctx context.Context, begin machinetime.Moment, forwards []qemu.Forward) ([]qemu.Forward, error) {
	ctx, cancel := v.clock.WithDeadline(ctx, begin, monitorWithin, fmt.Errorf("not within %v", monitorWithin))
	defer cancel()
	if err := v.qmp.Execute(ctx, "cont", nil, nil); err != nil {
		return nil, err
	}
	return v.forward(ctx, forwards, func() error {
		return v.reseed(ctx, true)
	})
}
