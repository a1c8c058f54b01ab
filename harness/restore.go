package harness

import (
	"context"
	"errors"
	"fmt"
	"runtime"

	"guesthouse.example/harness/internal/agent"
	"guesthouse.example/harness/internal/qemu"
	"guesthouse.example/harness/internal/qmp"
	"guesthouse.example/harness/internal/template"
)

// restoring holds a token for each machine that is being restored, because a restore takes a
// processor: on two processors, 32 machines had answered after 2.4 s with 2 to 4 tokens, and after
// 2.8 s without.
var restoring = make(chan struct{}, runtime.GOMAXPROCS(0)+1)

// restore loads the template into the stopped machine and lets it run. QEMU listens on no port until
// the guest's agent has reseeded the kernel, so that no packet reaches the guest before.
func (v *vm) restore(ctx context.Context, t *template.Template, forwards []qemu.Forward, prefetching bool) ([]qemu.Forward, error) {
	if version := v.qmp.Version(); version != t.Version {
		return nil, template.Fault{Err: fmt.Errorf("the template was saved by QEMU %s and this is %s", t.Version, version)}
	}
	err := v.qmp.ExecuteAll(ctx,
		qmp.Command{Name: "migrate-set-capabilities", Arguments: ignoreShared},
		qmp.Command{Name: "migrate-incoming", Arguments: map[string]string{"uri": fmt.Sprintf("fd:%d", qemu.StateFD)}})
	if err == nil {
		err = v.qmp.ExecuteAfter(ctx, func() error { return v.migrated(ctx) }, qmp.Command{Name: "cont"})
	}
	if err != nil {
		return nil, v.loadFailed(err)
	}
	return v.forward(ctx, forwards, func() error {
		if t.Agent == nil {
			return nil
		}
		if err := v.reseed(ctx, !prefetching); err != nil {
			return v.wakeFailed(err)
		}
		return nil
	})
}

// loadFailed returns the error of loading the template's state. It is a Fault if QEMU refused the
// state: QEMU then reports a failed migration, or exits with a status. A QEMU that was ended by a
// signal says nothing about the template.
func (v *vm) loadFailed(err error) error {
	switch {
	case errors.Is(err, errMigrationFailed):
		return template.Fault{Err: err}
	case errors.Is(err, qmp.ErrClosed), errors.Is(err, errEndedInMigration):
		<-v.proc.Done
		if v.proc.Exited() {
			return template.Fault{Err: fmt.Errorf("QEMU did not take the saved state: %w", v.proc.Describe())}
		}
	}
	return err
}

// wakeFailed returns the error of the restored guest's agent. It is a Fault if QEMU runs and the
// agent is silent or talks nonsense, or if the guest has crashed.
func (v *vm) wakeFailed(err error) error {
	if errors.Is(err, agent.ErrLineEnded) {
		<-v.proc.Done // Only the end of QEMU ends the line.
		if !v.proc.Exited() {
			return err
		}
	}
	return template.Fault{Err: err}
}
