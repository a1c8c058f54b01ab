package vm

import (
	"context"
	"fmt"
	"time"

	"guesthouse.example/harness/internal/agent"
)

// A resumption lists what Save has to undo for the machine to go on, whether or not it succeeded. It has every
// command that QEMU or the guest was sent, even if the answer did not come in time: the command may have
// been carried out, or be carried out later.
type resumption struct {
	stops    bool         // QEMU was told to stop the machine
	migrates bool         // QEMU was told to write its state, and has not said that it has finished
	pause    *agent.Pause // the agent was told to be quiet
}

// UndoWithin bounds, in wall time, what a call undoes after its context has ended: Save lets the machine go on, and
// a command is killed. The call then returns, and the rest follows when QEMU or the guest answers.
const UndoWithin = time.Second

// resume lets the machine go on and then calls done, even if ctx ends before.
func (v *VM) resume(ctx context.Context, r *resumption, done func()) error {
	resumed := make(chan error, 1)
	v.resuming.Go(func() {
		defer done()
		resumed <- v.undo(context.WithoutCancel(ctx), r)
	})
	select {
	case err := <-resumed:
		return err
	case <-ctx.Done():
	}
	select {
	case err := <-resumed:
		return err
	case <-time.After(UndoWithin):
		return fmt.Errorf("it goes on when QEMU answers: %w", context.Cause(ctx))
	}
}

func (v *VM) undo(ctx context.Context, r *resumption) (err error) {
	ctx, cancel := v.Within(ctx, monitorWithin)
	defer cancel()
	if r.migrates {
		err = v.cancelMigration(ctx)
	}
	if err == nil && r.stops {
		err = v.QMP.Execute(ctx, "cont", nil, nil)
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
