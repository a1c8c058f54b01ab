package harness

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"guesthouse.example/harness/internal/records"
	"guesthouse.example/harness/internal/template"
	"guesthouse.example/harness/internal/vm"
	"guesthouse.example/internal/initramfs"
	"guesthouse.example/internal/printable"
)

// prefetch restores a VM from a template before a machine is started. Its record is in memory, so nothing
// is left if this process dies. If delivery is true, a program will be delivered into the machine, which can
// be saved then.
func (p *plan) prefetch(ctx context.Context, t *template.Template, delivery bool) (*vm.VM, error) {
	if len(p.spec.Net) > 0 && t.Agent == nil {
		return nil, errors.New("the networks choose the addresses of its cards later, and the template's guest has no agent to set them")
	}
	without := *p
	without.qemu.Capture = false // it would have no record to go to
	p = &without
	files, err := p.openMemory(ctx, t, delivery)
	if err != nil {
		return nil, err
	}
	defer files.close()
	disks, err := p.openDisks(t)
	if err != nil {
		return nil, err
	}
	defer closeDisks(disks)
	rec := records.New()
	v, err := vm.Start(p.vm(p.qemu.Args(files.kind, disks), rec, t, files, disks))
	if err != nil {
		return nil, err
	}
	rehearsal := ""
	if delivery {
		rehearsal = initramfs.Program
	}
	if err := v.Prefetch(ctx, rehearsal); err != nil {
		v.Discard()
		line, _, _ := strings.Cut(rec.StderrText(), "\n")
		return nil, fmt.Errorf("%w %s", err, printable.Text(line))
	}
	return v, nil
}

// adopt makes a Machine of a prefetched VM: it opens the VM's record and lets the VM run. The guest is
// reseeded before a port is forwarded to it. If adopt fails, the VM has ended. After an unusableError
// the caller may start the machine in another way. The mode and why are for the Result. A machine
// whose mode is BootDelivered is a platform and gets the plan's program.
func (p *plan) adopt(ctx context.Context, v *vm.VM, mode BootMode, why string) (*Machine, error) {
	if err := v.Gone(); err != nil {
		v.Discard()
		return nil, unusableError{err}
	}
	attached, err := p.attach()
	if err != nil {
		v.Discard()
		return nil, fmt.Errorf("boot %s: %w", p.name(), err)
	}
	network, err := attached.network()
	if err != nil {
		v.Discard()
		attached.close(errNeverRan)
		return nil, fmt.Errorf("boot %s: %w", p.name(), err)
	}
	v.SetNetwork(network)
	if err := v.Record.Open(p.spec.Dir, p.spec, v.Process.CommandLine()); err != nil {
		v.Discard()
		attached.close(errNeverRan)
		return nil, fmt.Errorf("boot %s: %w", p.name(), err)
	}
	v.SetCrashes(p.crashes)
	m := p.machine(v, attached, p.started, mode, why)
	m.begin = v.Clock.Now()
	m.noteVersion()
	m.writeResult(func(*Result) {})
	if m.forwards, err = v.Continue(ctx, m.begin, p.qemu.Forwards); err == nil {
		err = m.connect(true)
	}
	if err == nil {
		err = m.relay()
	}
	if err != nil {
		if ctx.Err() != nil {
			go m.hash()
			return nil, m.giveUp(ctx, err)
		}
		v.Discard()
		m.leaveNetworks(errNeverRan)
		return nil, unusableError{fmt.Errorf("it did not go on: %w", err)}
	}
	if mode == BootDelivered {
		m.delivery = newDelivery()
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
