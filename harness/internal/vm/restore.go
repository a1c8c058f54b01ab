package vm

import (
	"context"
	"errors"
	"fmt"
	"time"

	"guesthouse.example/harness/internal/agent"
	"guesthouse.example/harness/internal/machinetime"
	"guesthouse.example/harness/internal/qemu"
	"guesthouse.example/harness/internal/qmp"
	"guesthouse.example/harness/internal/template"
)

// restore loads the template into the stopped machine and lets the machine run. QEMU forwards no port
// before the guest's agent has reseeded the kernel, so no packet reaches a guest with old entropy.
func (v *VM) restore(ctx context.Context, forwards []qemu.Forward, resume bool) ([]qemu.Forward, error) {
	t := v.from
	if version := v.QMP.Version(); version != t.Version {
		return nil, template.Fault{Err: fmt.Errorf("the template was saved by QEMU %s and this is %s", t.Version, version)}
	}
	err := v.QMP.ExecuteAll(ctx,
		qmp.Command{Name: "migrate-set-capabilities", Arguments: ignoreShared},
		qmp.Command{Name: "migrate-incoming", Arguments: map[string]string{"uri": fmt.Sprintf("fd:%d", qemu.StateFD)}})
	if err == nil {
		err = v.QMP.ExecuteAfter(ctx, func() error { return v.migrated(ctx) }, qmp.Command{Name: "cont"})
	}
	if err != nil {
		return nil, v.loadFailed(err)
	}
	return v.forward(ctx, forwards, func() error {
		if t.Agent == nil {
			v.noteAge()
			return nil
		}
		if err := v.reseed(ctx, v.network, resume); err != nil {
			return v.reseedFailed(err)
		}
		return nil
	})
}

// noteAge notes that the clock of a restored guest without an agent is late by the age of its template.
func (v *VM) noteAge() { v.clockLate.Store(int64(time.Since(v.from.Saved))) }

// Unseeded reports whether the guest was restored and has no agent that could give it new entropy.
func (v *VM) Unseeded() bool { return v.from != nil && v.from.Agent == nil }

// loadFailed makes an error of loading the template's state a Fault if QEMU has refused the state: QEMU
// then reports a failed migration, or exits. The error stays as it is if a signal has killed QEMU.
func (v *VM) loadFailed(err error) error {
	switch {
	case errors.Is(err, errMigrationFailed):
		return template.Fault{Err: err}
	case errors.Is(err, qmp.ErrClosed), errors.Is(err, errEndedInMigration):
		<-v.Process.Done
		if v.Process.Exited() {
			return template.Fault{Err: fmt.Errorf("QEMU refused the saved state: %w", v.Process.Describe())}
		}
	}
	return err
}

// reseedFailed makes an error of reseeding a restored guest a Fault if the guest is to blame: its agent
// is silent or breaks the protocol, or the guest has crashed. The error stays as it is if a signal has
// killed QEMU.
func (v *VM) reseedFailed(err error) error {
	if errors.Is(err, agent.ErrLineEnded) {
		<-v.Process.Done // Only the end of QEMU ends the line.
		if !v.Process.Exited() {
			return err
		}
	}
	return template.Fault{Err: err}
}

// Prefetch restores the machine, warms it up and stops it. Until Continue, the stopped machine takes no
// processor time, its guest's clock stands still, and no port is forwarded to it. The warm-up is an echo of
// datagrams, or the delivery of a file to path if path is not empty;
// a guest without an agent has none.
func (v *VM) Prefetch(ctx context.Context, path string) error {
	_, err := v.connect(ctx, nil, false)
	if err == nil && v.from.Agent != nil {
		err = v.rehearse(ctx, path)
	}
	if err == nil {
		err = v.QMP.Execute(ctx, "stop", nil, nil)
	}
	return err
}

// rehearse is the warm-up of Prefetch, for a guest with an agent.
func (v *VM) rehearse(ctx context.Context, path string) (err error) {
	if path == "" {
		err = v.echoDatagrams(ctx)
	} else {
		err = v.rehearseDelivery(ctx, path)
	}
	if err == nil {
		// Quiesce also ends the agent's echo.
		_, err = v.quiesce(ctx, &resumption{})
	}
	return err
}

// Continue lets a prefetched machine run, reseeds its guest and then forwards ports to it. It fails if it
// takes longer than monitorWithin of the machine's time since begin.
func (v *VM) Continue(ctx context.Context, begin machinetime.Moment, forwards []qemu.Forward) ([]qemu.Forward, error) {
	ctx, cancel := v.Clock.WithDeadline(ctx, begin, monitorWithin, fmt.Errorf("not within %v", monitorWithin))
	defer cancel()
	if err := v.QMP.Execute(ctx, "cont", nil, nil); err != nil {
		return nil, err
	}
	return v.forward(ctx, forwards, func() error {
		if v.from.Agent == nil {
			v.noteAge()
			return nil
		}
		return v.reseed(ctx, v.network, true)
	})
}
