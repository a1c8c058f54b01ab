package vm

import (
	"context"
	"errors"
	"fmt"
	"time"

	"guesthouse.example/harness/internal/template"
)

// ErrStands is wrapped by the error of a machine that does not go on after it was saved.
var ErrStands = errors.New("the machine does not go on after it was saved")

// errNotSavable says that Save cannot read the guest's memory.
var errNotSavable = errors.New("it was restored from a template without Spec.Savable, runs with KVM, has QEMU arguments of its own, or the host has no memfd_create")

// Save writes a template with an identity into a directory, and lets the machine go on. A guest without an
// agent is saved only with anyGuest; otherwise the error wraps ErrNoAgent.
func (v *VM) Save(ctx context.Context, dir string, id template.Identity, anyGuest bool) error {
	if v.ram == nil {
		return errNotSavable
	}
	if err := v.noConnections(ctx); err != nil {
		return err
	}
	if err := take(ctx, v.saving); err != nil {
		return err
	}
	release, err := v.Console.HoldTyping(ctx)
	if err != nil {
		<-v.saving
		return err
	}
	var r resumption
	err = v.write(ctx, dir, id, anyGuest, &r)
	if again := v.resume(ctx, &r, func() { release(); <-v.saving }); again != nil {
		if err != nil {
			again = fmt.Errorf("%w; saving it failed before: %w", again, err)
		}
		return fmt.Errorf("%w: %w", ErrStands, again)
	}
	return err
}

// take puts a token into a channel, or waits until there is room for it.
func take(ctx context.Context, token chan<- struct{}) error {
	select {
	case token <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// write writes a template into a directory. It notes in r what has to be undone for the machine to
// go on.
func (v *VM) write(ctx context.Context, dir string, id template.Identity, anyGuest bool, r *resumption) error {
	v.warmUp(ctx)
	saved, err := v.quiesce(ctx, r)
	if err != nil && (!anyGuest || !errors.Is(err, ErrNoAgent)) {
		return err
	}
	// Each restored machine has to finish what the guest is doing when it is saved.
	if err := v.Clock.WaitIdle(ctx); err != nil {
		return err
	}
	if err := v.stopWithoutConnections(ctx, r); err != nil {
		return err
	}
	d := template.Description{Of: id, Version: v.QMP.Version(), Saved: time.Now(), Agent: saved}
	w := template.NewWriter(dir)
	if err := v.saveState(ctx, w, r); err != nil {
		return err
	}
	// The state does not hold the last bytes of the console. QEMU has written them before it said
	// that the state is complete.
	if err := v.Console.CatchUp(); err != nil {
		return err
	}
	d.Console = v.Console.State()
	if err := w.CopyRAM(ctx, v.ram); err != nil {
		return err
	}
	return w.Close(d)
}
