package vm

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"guesthouse.example/harness/internal/template"
	"guesthouse.example/harness/internal/until"
)

// ErrStillStopped is wrapped by the error of Save if the machine does not go on afterwards.
var ErrStillStopped = errors.New("the machine does not go on after it was saved")

// errNotSavable says that Save cannot read the guest's memory.
var errNotSavable = errors.New("it was restored from a template without Spec.Savable, runs with a KVM that restores no machine, writes to the file of a disk, has QEMU arguments of its own, or the host has no memfd_create")

// BeginSave lets a Writer begin to write what is known of the machine's memory before Save: the memory of
// the template from which the machine was restored.
func (v *VM) BeginSave(w *template.Writer) {
	if v.base != nil {
		w.BeginRAM(v.base)
	}
}

// Save writes a template with an identity, and lets the machine go on. guest names the guest program for
// people. A guest without an agent is saved only with anyGuest; otherwise the error wraps ErrNoAgent.
func (v *VM) Save(ctx context.Context, w *template.Writer, id template.Identity, guest string, anyGuest bool) error {
	if v.ram == nil {
		return errNotSavable
	}
	v.BeginSave(w)
	if err := v.waitNoConnections(ctx); err != nil {
		return err
	}
	if err := until.Take(ctx, v.saving); err != nil {
		return err
	}
	release, err := v.Console.HoldTyping(ctx)
	if err != nil {
		<-v.saving
		return err
	}
	var r resumption
	err = v.write(ctx, w, template.Description{Of: id, Guest: guest}, anyGuest, &r)
	if stopped := v.resume(ctx, &r, func() { release(); <-v.saving }); stopped != nil {
		if err != nil {
			stopped = fmt.Errorf("%w; saving it failed before: %w", stopped, err)
		}
		return fmt.Errorf("%w: %w", ErrStillStopped, stopped)
	}
	return err
}

// write stops the machine, completes the description of a template and writes the template. It notes in r
// what must be undone before the machine goes on.
func (v *VM) write(ctx context.Context, w *template.Writer, d template.Description, anyGuest bool, r *resumption) error {
	if !v.warm {
		v.warmUp(ctx)
		v.warm = true
	}
	saved, err := v.quiesce(ctx, r)
	if err != nil && (!anyGuest || !errors.Is(err, ErrNoAgent)) {
		return err
	}
	// Work that the guest has not finished now would be finished by each restored machine.
	if err := v.Clock.WaitIdle(ctx); err != nil {
		return err
	}
	if err := v.stopWithoutConnections(ctx, r); err != nil {
		return err
	}
	d.Version, d.Saved, d.Agent = v.QMP.Version(), time.Now(), saved
	if saved == nil {
		for _, c := range v.network.Cards {
			d.Cards = append(d.Cards, net.HardwareAddr(c.MAC[:]).String())
		}
	}
	if err := v.saveState(ctx, w, r); err != nil {
		return err
	}
	// The device state does not hold the last bytes of the console. QEMU writes these bytes before it
	// reports that the migration is complete.
	if err := v.Console.CatchUp(); err != nil {
		return err
	}
	d.Console = v.Console.State()
	if err := v.copyRAM(ctx, w); err != nil {
		return err
	}
	// QEMU has written its caches of the disks when the machine stopped.
	for i, d := range v.disks {
		if err := w.CopyDisk(ctx, i, d.Saved, d.Overlay); err != nil {
			return err
		}
	}
	return w.Close(d)
}

// copyRAM copies the memory of the stopped machine.
func (v *VM) copyRAM(ctx context.Context, w *template.Writer) error {
	if v.base == nil {
		return w.CopyRAM(ctx, v.ram)
	}
	return w.CopyChanges(ctx, v.ram)
}
