package vm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"guesthouse.example/harness/internal/machinetime"
	"guesthouse.example/harness/internal/qemu"
	"guesthouse.example/harness/internal/qmp"
	"guesthouse.example/harness/internal/template"
	"guesthouse.example/internal/printable"
)

// monitorWithin bounds QEMU's own start, up to its answer on the monitor, in the machine's time.
const monitorWithin = 30 * time.Second

// Connect opens the monitor of the stopped machine, restores the machine if it has a template, and lets it
// run. It returns the forwards with their ports on the host.
func (v *VM) Connect(ctx context.Context, forwards []qemu.Forward) ([]qemu.Forward, error) {
	return v.connect(ctx, forwards, true)
}

// connect is Connect. If resume is false, a restored guest's program does not yet run its functions for
// guest.OnRestore.
func (v *VM) connect(ctx context.Context, forwards []qemu.Forward, resume bool) (found []qemu.Forward, err error) {
	ctx, cancel := v.Clock.WithDeadline(ctx, machinetime.Moment{}, monitorWithin, fmt.Errorf("QEMU's monitor did not answer within %v", monitorWithin))
	defer cancel()
	v.QMP, err = qmp.New(ctx, v.Process.Monitor, v.Record.QMP, v.onEvent)
	switch {
	case err != nil:
	case v.from != nil:
		found, err = v.restore(ctx, forwards, resume)
	default:
		var table string
		if err = v.QMP.ExecuteAll(ctx, usernet(&table)); err == nil {
			found, err = qemu.ReadForwards(table, forwards)
		}
		if err == nil {
			err = v.QMP.Execute(ctx, "cont", nil, nil)
		}
	}
	if errors.Is(err, qmp.ErrClosed) && !template.IsFault(err) {
		if err := v.waitProcessEnd(ctx); err != nil {
			return nil, err
		}
		return nil, fmt.Errorf("QEMU did not start: %w", v.Process.Describe())
	}
	return found, err
}

// onEvent records the events of QEMU that other methods wait for.
func (v *VM) onEvent(e qmp.Event) {
	switch e.Name {
	case "SHUTDOWN":
		v.shutdown.Store(string(e.Data))
	case "MIGRATION":
		var data struct{ Status string }
		json.Unmarshal(e.Data, &data) // an event without a status says nothing
		select {
		case v.migration <- data.Status:
		default: // no migration runs
		}
	}
}

// waitProcessEnd waits until a QEMU whose monitor connection has ended has exited.
func (v *VM) waitProcessEnd(ctx context.Context) error {
	select {
	case <-v.Process.Done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("QEMU's monitor has ended and QEMU has not: %w", context.Cause(ctx))
	}
}

// forward calls after, which may be nil, and then makes QEMU forward ports to the guest. It returns the
// forwards with their ports on the host. If after fails, nothing is forwarded, and the monitor
// connection is closed.
func (v *VM) forward(ctx context.Context, ports []qemu.Forward, after func() error) ([]qemu.Forward, error) {
	answers := make([]string, len(ports))
	var commands []qmp.Command
	for i, port := range ports {
		commands = append(commands, qmp.Human(v.QEMU.Network.AddCommand(port), &answers[i]))
	}
	// The flush gives QEMU the frames that the guest has sent. The guest's ARP announcement is among
	// them, so QEMU need not ask for the guest's address when it forwards the first datagram.
	ready := func() (err error) {
		if after != nil {
			err = after()
		}
		v.Filter.Flush()
		return err
	}
	var table string
	if err := v.QMP.ExecuteAfter(ctx, ready, append(commands, usernet(&table))...); err != nil {
		return nil, err
	}
	for i, port := range ports {
		if refusal := strings.TrimSpace(answers[i]); refusal != "" {
			return nil, fmt.Errorf("forward port %s/%d: QEMU: %s", port.Network, port.Guest, printable.Text(refusal))
		}
	}
	return qemu.ReadForwards(table, ports)
}

// usernet returns the command that lists the forwards and connections of QEMU's user network.
func usernet(table *string) qmp.Command { return qmp.Human(qemu.TableCommand, table) }
