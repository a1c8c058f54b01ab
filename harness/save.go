package harness

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"guesthouse.example/harness/internal/template"
)

// Save saves the ready machine into a new directory, from which any number of machines can be
// restored ([Spec].From). The directory is complete when it appears.
//
// Before it saves, Save has the guest's agent echo some datagrams and waits until the guest is idle,
// for at most 6 s of the machine's time. The machine then stands still for some tenths of a second,
// and goes on. No TCP connection to the machine may be open: Save waits for at most 5 s of the
// machine's time for one that is about to close.
//
// The agent of package guest gives the saved machine, and each restored one, the host's clock, new
// entropy for its kernel and a new boot identity. Machines that are restored from a guest without
// an agent draw the same random numbers until their kernels have other entropy, and their clocks
// are late by the age of the template.
//
// A machine cannot be saved if it was restored itself, runs with KVM or has QEMUArgs.
func (m *Machine) Save(ctx context.Context, dir string) (*Template, error) {
	fail := func(err error) (*Template, error) {
		return nil, fmt.Errorf("save %s into %s: %w", m.plan.spec.Target, dir, err)
	}
	if state := m.Result().State; state != StateReady {
		return fail(fmt.Errorf("the machine is not ready but %s", state))
	}
	if err := m.crashed(); err != nil {
		return fail(err)
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return fail(err)
	}
	if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
		return fail(errors.New("it exists already"))
	}
	building, err := os.MkdirTemp(filepath.Dir(dir), "."+filepath.Base(dir)+"-*.new")
	if err != nil {
		return fail(err)
	}
	defer os.RemoveAll(building)
	if err := m.save(ctx, building, true); err != nil {
		return fail(err)
	}
	if err := os.Rename(building, dir); err != nil {
		return fail(err)
	}
	t, err := template.Open(dir)
	if err != nil {
		return fail(err)
	}
	return &Template{t}, nil
}

// errStands is wrapped by the error of a machine that does not go on after it was saved.
var errStands = errors.New("the machine does not go on after it was saved")

// save writes a template into a directory.
func (m *Machine) save(ctx context.Context, dir string, anyGuest bool) error {
	if m.ram == nil {
		return errors.New("it was restored from a template itself (with Spec.From = Cold it boots), runs with KVM, has QEMU arguments of its own, or the host has no memfd_create")
	}
	if err := m.noConnections(ctx); err != nil {
		return err
	}
	if err := take(ctx, m.saving); err != nil {
		return err
	}
	release, err := m.console.HoldTyping(ctx)
	if err != nil {
		<-m.saving
		return err
	}
	var r resumption
	err = m.write(ctx, dir, anyGuest, &r)
	if again := m.resume(ctx, &r, func() { release(); <-m.saving }); again != nil {
		if err != nil {
			again = fmt.Errorf("%w; saving it failed before: %w", again, err)
		}
		return fmt.Errorf("%w: %w", errStands, again)
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
func (m *Machine) write(ctx context.Context, dir string, anyGuest bool, r *resumption) error {
	m.warmUp(ctx)
	saved, err := m.quiesce(ctx, r)
	if err != nil && (!anyGuest || !errors.Is(err, errNoAgent)) {
		return err
	}
	// Each restored machine has to finish what the guest is doing when it is saved.
	if err := m.clock.WaitIdle(ctx); err != nil {
		return err
	}
	if err := m.stopWithoutConnections(ctx, r); err != nil {
		return err
	}
	d := template.Description{Version: m.qmp.Version(), Saved: time.Now(), Agent: saved}
	if d.Of, err = m.plan.identity(); err != nil {
		return err
	}
	w := template.NewWriter(dir)
	if err := m.saveState(ctx, w, r); err != nil {
		return err
	}
	// The state does not hold the last bytes of the console. QEMU has written them before it said
	// that the state is complete.
	if err := m.console.CatchUp(); err != nil {
		return err
	}
	d.Console = m.console.State()
	if err := w.CopyRAM(ctx, m.ram); err != nil {
		return err
	}
	return w.Close(d)
}

// ignoreShared tells QEMU to leave memory that is a file where it is. QEMU must do so when it
// saves and when it restores.
var ignoreShared = map[string]any{"capabilities": []map[string]any{
	{"capability": "x-ignore-shared", "state": true},
}}

// saveState has QEMU write its state.
func (v *vm) saveState(ctx context.Context, w *template.Writer, r *resumption) error {
	f, err := w.CreateState()
	if err != nil {
		return err
	}
	defer f.Close()
	err = v.qmp.Execute(ctx, "migrate-set-capabilities", ignoreShared, nil)
	if err == nil {
		err = v.qmp.Give(ctx, "state", f)
	}
	for len(v.migration) > 0 { // events of a migration that was given up
		<-v.migration
	}
	if err == nil {
		r.migrates = true
		err = v.qmp.Execute(ctx, "migrate", map[string]string{"uri": "fd:state"}, nil)
	}
	if err == nil {
		err = v.migrated(ctx)
	}
	if err == nil || ctx.Err() == nil {
		r.migrates = false // The migration has ended, whether it succeeded or not.
	}
	if err != nil {
		return err
	}
	return w.CloseState()
}

var (
	errMigrationFailed  = errors.New("QEMU: the migration failed")
	errEndedInMigration = errors.New("QEMU ended during the migration")
)

// migrated waits for the end of a migration that was just started. Events before its begin are those
// of a migration that was given up.
func (v *vm) migrated(ctx context.Context) error {
	for begun := false; ; {
		select {
		case status := <-v.migration:
			switch {
			case status == "setup":
				begun = true
			case !begun:
			case status == "completed":
				return nil
			case status == "failed", status == "cancelled":
				return fmt.Errorf("%w: its status is %s", errMigrationFailed, status)
			}
		case <-v.qmp.Done():
			if err := v.processEnd(ctx); err != nil {
				return err
			}
			return fmt.Errorf("%w: %w", errEndedInMigration, v.proc.Describe())
		case <-ctx.Done():
			return fmt.Errorf("migration: %w", context.Cause(ctx))
		}
	}
}
