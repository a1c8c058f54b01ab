package vm

import (
	"context"
	"errors"
	"fmt"
	"time"

	"guesthouse.example/harness/internal/template"
)

// ignoreShared tells QEMU to leave memory that is a file where it is. QEMU must do so when it
// saves and when it restores.
var ignoreShared = map[string]any{"capabilities": []map[string]any{
	{"capability": "x-ignore-shared", "state": true},
}}

// saveState makes QEMU write its device state into a file of the template.
func (v *VM) saveState(ctx context.Context, w *template.Writer, r *resumption) error {
	f, err := w.CreateState()
	if err != nil {
		return err
	}
	defer f.Close()
	err = v.QMP.Execute(ctx, "migrate-set-capabilities", ignoreShared, nil)
	if err == nil {
		err = v.QMP.Give(ctx, "state", f)
	}
	for len(v.migration) > 0 { // drop the events of an earlier migration that was cancelled
		<-v.migration
	}
	if err == nil {
		r.migrates = true
		err = v.QMP.Execute(ctx, "migrate", map[string]string{"uri": "fd:state"}, nil)
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

// migrated waits for the end of a migration that was just started. It ignores events before the status
// "setup", because they are of an earlier migration that was cancelled.
func (v *VM) migrated(ctx context.Context) error {
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
		case <-v.QMP.Done():
			if err := v.waitProcessEnd(ctx); err != nil {
				return err
			}
			return fmt.Errorf("%w: %w", errEndedInMigration, v.Process.Describe())
		case <-ctx.Done():
			return fmt.Errorf("migration: %w", context.Cause(ctx))
		}
	}
}

// cancelMigration ends a migration that may not have begun yet. QEMU carries out commands in their
// order, so a migration that has not begun when QEMU answers migrate_cancel never begins.
func (v *VM) cancelMigration(ctx context.Context) error {
	if err := v.QMP.Execute(ctx, "migrate_cancel", nil, nil); err != nil {
		return err
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		var now struct{ Status string }
		if err := v.QMP.Execute(ctx, "query-migrate", nil, &now); err != nil {
			return err
		}
		switch now.Status { // of an earlier migration, if this one has not begun
		case "", "none", "completed", "failed", "cancelled":
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("migration: %w", context.Cause(ctx))
		}
	}
}
