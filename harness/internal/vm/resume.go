package vm

import (
	"context"
	"fmt"
	"time"

	"guesthouse.example/harness/internal/agent"
	"guesthouse.example/harness/internal/until"
	"guesthouse.example/internal/wire"
)

// A resumption lists what Save must undo before the machine goes on, whether or not Save succeeded. It
// has every command that was sent to QEMU or to the guest, even without an answer, because the command
// may still be carried out.
type resumption struct {
	stops    bool         // QEMU was told to stop the machine
	migrates bool         // QEMU was told to write its state, and has not reported the end
	pause    *agent.Pause // the agent was told to quiesce the guest; nil if it was not
}

// undoWithin is how long, in wall time, a call whose context has ended waits until it has undone its work:
// until a machine goes on after Save, or until a command is killed. The call then returns, and the rest
// is undone when QEMU or the guest answers.
const undoWithin = time.Second

// resume lets the machine go on and then calls done. If ctx ends first, resume returns an error after
// undoWithin, and the machine goes on later.
func (v *VM) resume(ctx context.Context, r *resumption, done func()) error {
	resumed := make(chan error, 1)
	v.resuming.Go(func() {
		defer done()
		resumed <- v.undo(context.WithoutCancel(ctx), r)
	})
	if err, ok := until.Receive(ctx, resumed, undoWithin); ok {
		return err
	}
	return fmt.Errorf("it goes on when QEMU answers: %w", context.Cause(ctx))
}

func (v *VM) undo(ctx context.Context, r *resumption) (err error) {
	ctx, cancel := v.Within(ctx, monitorWithin)
	defer cancel()
	if r.migrates {
		err = v.cancelMigration(ctx)
	}
	if err == nil && r.stops {
		err = v.goOn(ctx)
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
	return v.reseed(ctx, wire.Network{}, true)
}

// goOn lets a machine run whose state was written. QEMU reports that the migration is complete a moment before it leaves the
// state "finish-migrate", in which it refuses "cont", and reports no more.
func (v *VM) goOn(ctx context.Context) error {
	for {
		var now struct {
			Status string `json:"status"`
		}
		if err := v.QMP.Execute(ctx, "query-status", nil, &now); err != nil {
			return err
		}
		if now.Status != "finish-migrate" {
			return v.QMP.Execute(ctx, "cont", nil, nil)
		}
		select {
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
