package harness

import (
	"context"
	"fmt"
	"os"

	"guesthouse.example/harness/internal/qemu"
	"guesthouse.example/harness/internal/records"
	"guesthouse.example/harness/internal/template"
	"guesthouse.example/harness/internal/vm"
)

// A memory holds the files of a machine's memory and of its device state, which QEMU inherits.
type memory struct {
	kind  qemu.RAM
	ram   *os.File // nil if QEMU has the memory
	base  *os.File // the template's memory, if ram is a copy of it; nil otherwise
	state *os.File // nil if the machine boots
}

func (f memory) close() {
	for _, file := range []*os.File{f.ram, f.base, f.state} {
		if file != nil {
			file.Close()
		}
	}
}

// openMemory opens the memory of a machine that is restored from a template, or boots if t is nil. If savable
// is true, a restored machine can be saved.
func (p *plan) openMemory(ctx context.Context, t *template.Template, savable bool) (f memory, err error) {
	if t == nil {
		if p.savable() {
			// Without the file, only Save does not work.
			if f.ram, err = qemu.NewRAM(p.spec.Memory); err == nil {
				f.kind = qemu.SharedRAM
			}
		}
		return f, nil
	}
	f.kind = qemu.RestoreRAM(t.Version)
	if f.ram, f.state, err = t.OpenFiles(); err != nil {
		return memory{}, err
	}
	if !savable {
		return f, nil
	}
	f.kind, f.base = qemu.CopiedRAM, f.ram
	if f.ram, err = qemu.NewRAM(p.spec.Memory); err == nil {
		err = template.LoadRAM(ctx, f.ram, f.base)
	}
	if err != nil {
		f.close()
		return memory{}, fmt.Errorf("copy the template's memory: %w", err)
	}
	return f, nil
}

// vm describes the plan's machine to package vm.
func (p *plan) vm(args []string, rec *records.Record, t *template.Template, f memory, disks []qemu.DiskFiles) vm.Config {
	return vm.Config{
		QEMU: p.qemu, Args: args, Rules: p.rules(), Crashes: p.crashes, Record: rec, From: t,
		RAM: f.ram, Base: f.base, State: f.state, Disks: disks,
		Savable: f.kind == qemu.SharedRAM || f.kind == qemu.CopiedRAM,
	}
}
