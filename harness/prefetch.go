package harness

import (
	"context"
	"fmt"
	"strings"

	"guesthouse.example/harness/internal/qemu"
	"guesthouse.example/harness/internal/records"
	"guesthouse.example/harness/internal/template"
	"guesthouse.example/harness/internal/vm"
	"guesthouse.example/internal/printable"
)

// prefetch restores a VM from a template before a machine is started. Its record is in memory, so nothing
// is left if this process dies.
func (p *plan) prefetch(ctx context.Context, t *template.Template) (*vm.VM, error) {
	if t.Agent == nil {
		return nil, vm.ErrNoAgent // without an agent, the guest would go on with an old clock and old entropy
	}
	ram, state, err := t.OpenFiles()
	if err != nil {
		return nil, err
	}
	defer ram.Close()
	defer state.Close()
	disks, err := p.openDisks(t)
	if err != nil {
		return nil, err
	}
	defer closeDisks(disks)
	rec := records.New()
	v, err := vm.Start(p.vm(p.qemu.Args(qemu.RestoreRAM(t.Version), disks), rec, t, ram, state, disks))
	if err != nil {
		return nil, err
	}
	if err := v.Prefetch(ctx); err != nil {
		v.Discard()
		line, _, _ := strings.Cut(rec.StderrText(), "\n")
		return nil, fmt.Errorf("%w %s", err, printable.Text(line))
	}
	return v, nil
}

// adopt makes a Machine of a prefetched VM: it opens the VM's record and lets the VM run. The guest is
// reseeded before a port is forwarded to it. If adopt fails, the VM has ended. After an unusableError
// the caller may start the machine in another way.
func (p *plan) adopt(ctx context.Context, v *vm.VM) (*Machine, error) {
	if err := v.Gone(); err != nil {
		v.Discard()
		return nil, unusableError{err}
	}
	if err := v.Record.Open(p.spec.Dir, p.spec, v.Process.CommandLine()); err != nil {
		v.Discard()
		return nil, fmt.Errorf("boot %s: %w", p.spec.Target, err)
	}
	v.SetCrashes(p.crashes)
	m := p.machine(v, p.started, BootPrefetched, "")
	m.begin = v.Clock.Now()
	m.noteVersion()
	m.writeResult(func(*Result) {})
	var err error
	if m.forwards, err = v.Continue(ctx, m.begin, p.qemu.Forwards); err != nil {
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

// An unusableError says why a prefetched VM cannot become a machine.
type unusableError struct{ err error }

func (e unusableError) Error() string {
	return "the prefetched machine could not be used: " + oneLine(e.err)
}
