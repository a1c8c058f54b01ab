package harness

import (
	"context"
	"fmt"
	"time"

	"guesthouse.example/harness/internal/agent"
)

// A resumption is what has to be undone for a machine to go on, whatever came of its being
// saved. What QEMU or the guest was told counts, even if the answer did not come in time:
// it may have been carried out, or be so later.
type resumption struct {
	stops    bool         // QEMU was told to stop the machine
	migrates bool         // and to write its state, of whose end nobody has heard
	pause    *agent.Pause // the agent was told to be quiet
}

// resumesWithin is how long what has to be undone at the end of a context may take, on the wall:
// to let a machine go on after Save, to kill a command. Then the call returns, and the rest is done
// when QEMU or the guest answers.
const resumesWithin = time.Second

// resume lets the machine go on and then calls done, also when ctx ends first.
func (m *Machine) resume(ctx context.Context, r *resumption, done func()) error {
	resumed := make(chan error, 1)
	m.resuming.Go(func() {
		defer done()
		resumed <- m.undo(context.WithoutCancel(ctx), r)
	})
	select {
	case err := <-resumed:
		return err
	case <-ctx.Done():
	}
	select {
	case err := <-resumed:
		return err
	case <-time.After(resumesWithin):
		return fmt.Errorf("it goes on when QEMU answers: %w", context.Cause(ctx))
	}
}

func (v *vm) undo(ctx context.Context, r *resumption) (err error) {
	ctx, cancel := v.within(ctx, monitorWithin)
	defer cancel()
	if r.migrates {
		err = v.cancelMigration(ctx)
	}
	if err == nil && r.stops {
		err = v.qmp.Execute(ctx, "cont", nil, nil)
	}
	if r.pause == nil {
		return err
	}
	if err == nil {
		err = r.pause.Wait(ctx)
	}
	if err != nil {
		r.pause.Abandon()
		return err
	}
	return v.reseed(ctx, true)
}

// cancelMigration ends a migration that may have begun. Commands are answered in their order, so
// it has, or never will, when this one is answered.
func (v *vm) cancelMigration(ctx context.Context) error {
	if err := v.qmp.Execute(ctx, "migrate_cancel", nil, nil); err != nil {
		return err
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		var now struct{ Status string }
		if err := v.qmp.Execute(ctx, "query-migrate", nil, &now); err != nil {
			return err
		}
		switch now.Status { // also of an earlier one, where this one has not begun
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
