package harness

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"guesthouse.example/harness/console"
	"guesthouse.example/harness/internal/agent"
	"guesthouse.example/harness/internal/machinetime"
	"guesthouse.example/harness/internal/outbound"
	"guesthouse.example/harness/internal/qemu"
	"guesthouse.example/harness/internal/qmp"
	"guesthouse.example/harness/internal/records"
	"guesthouse.example/harness/internal/template"
	"guesthouse.example/internal/printable"
	"guesthouse.example/internal/subnet"
	"guesthouse.example/internal/sys"
)

// A vm is a QEMU process with its guest and the harness's ends of their lines. A Machine owns one. A
// prefetched vm has no Machine until a test boots it.
type vm struct {
	qemu    qemu.Machine
	proc    *qemu.Process
	qmp     *qmp.Client
	console *console.Console
	agent   *agent.Client
	filter  *outbound.Filter // nil if the guest may reach everything
	record  *records.Record
	clock   *machinetime.Clock
	crashes []string // the user's patterns that the console looks for, as in Spec.Crashes

	migration chan string   // states of the migration that runs
	shutdown  atomic.Value  // string: the reason that QEMU gives for its end
	clockLate atomic.Int64  // nanoseconds by which a restored guest's clock is late at most
	drained   chan struct{} // closed when the last byte of the console is in the log
	collected chan struct{} // closed when the rest of a crash is in the log, or the console has ended without a crash
}

// start starts the plan's machine, which stands still, and reads from its lines.
func (p *plan) start(args []string, rec *records.Record, t *template.Template, ram, state *os.File) (*vm, error) {
	proc, err := p.qemu.Start(args, rec.Stderr, ram, state)
	if err != nil {
		return nil, err
	}
	v := &vm{
		qemu: p.qemu, proc: proc, record: rec, crashes: p.spec.Crashes,
		clock:     machinetime.New(proc.PID(), proc.Done, rec.Start),
		migration: make(chan string, 16),
		drained:   make(chan struct{}),
		collected: make(chan struct{}),
	}
	if v.qemu.Filtered {
		f := proc.Frames
		if v.filter, err = outbound.Start(p.rules(), f[0], f[1], f[2]); err != nil {
			proc.Kill()
			return nil, err
		}
	}
	options := console.Options{
		Record:  rec.Console,
		Crashes: p.crashes, CrashComplete: v.collected,
	}
	var saved *agent.Saved
	if t != nil {
		options.State, saved = &t.Console, t.Agent
	}
	v.console = console.New(proc.Console, options)
	v.agent = agent.New(proc.Agent, rec.Agent, saved)
	go v.collect()
	go v.agent.Listen()
	go func() {
		<-v.console.Done()
		proc.Console.Close()
		close(v.drained)
	}()
	return v, nil
}

// connect opens the monitor of the stopped machine, restores the machine if it has a template, and lets it
// run. It returns the forwards with their ports on the host. The program of a prefetched guest does not go on yet.
func (v *vm) connect(ctx context.Context, t *template.Template, forwards []qemu.Forward, prefetching bool) (found []qemu.Forward, err error) {
	ctx, cancel := v.clock.WithDeadline(ctx, machinetime.Moment{}, monitorWithin, fmt.Errorf("QEMU's monitor did not answer within %v", monitorWithin))
	defer cancel()
	v.qmp, err = qmp.New(ctx, v.proc.Monitor, v.record.QMP, func(e qmp.Event) {
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
	})
	switch {
	case err != nil:
	case t != nil:
		found, err = v.restore(ctx, t, forwards, prefetching)
	default:
		var table string
		if err = v.qmp.ExecuteAll(ctx, usernet(&table)); err == nil {
			found, err = qemu.ReadForwards(table, forwards)
		}
		if err == nil {
			err = v.qmp.Execute(ctx, "cont", nil, nil)
		}
	}
	if errors.Is(err, qmp.ErrClosed) && !template.IsFault(err) {
		if err := v.processEnd(ctx); err != nil {
			return nil, err
		}
		return nil, fmt.Errorf("QEMU did not start: %w", v.proc.Describe())
	}
	return found, err
}

// processEnd waits for the end of a QEMU whose monitor has ended.
func (v *vm) processEnd(ctx context.Context) error {
	select {
	case <-v.proc.Done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("QEMU's monitor has ended and QEMU has not: %w", context.Cause(ctx))
	}
}

// within returns a context for a wait of at most d of the machine's time; see Machine.Within.
func (v *vm) within(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	return v.clock.WithTimeout(ctx, d)
}

// forward has QEMU forward the guest's ports as soon as after returns nil, or at once if
// that is nil, and returns them with the host's.
func (v *vm) forward(ctx context.Context, ports []qemu.Forward, after func() error) ([]qemu.Forward, error) {
	said := make([]string, len(ports))
	var commands []qmp.Command
	for i, port := range ports {
		commands = append(commands, qmp.Human(v.qemu.Network.AddCommand(port), &said[i]))
	}
	// What the guest has sent by then is with QEMU before the first datagram for it comes: with its
	// announcement QEMU need not ask where the guest is.
	ready := func() (err error) {
		if after != nil {
			err = after()
		}
		v.filter.Flush()
		return err
	}
	var table string
	if err := v.qmp.ExecuteAfter(ctx, ready, append(commands, usernet(&table))...); err != nil {
		return nil, err
	}
	for i, port := range ports {
		if said := strings.TrimSpace(said[i]); said != "" {
			return nil, fmt.Errorf("port %s/%d: QEMU: %s", port.Network, port.Guest, printable.Text(said))
		}
	}
	return qemu.ReadForwards(table, ports)
}

// usernet asks QEMU for the forwards and connections of its user networking.
func usernet(table *string) qmp.Command { return qmp.Human(qemu.TableCommand, table) }

// rules are those of the plan's guest.
func (p *plan) rules() outbound.Rules {
	host, _ := subnet.Others(p.qemu.Network.Guest)
	host6, _ := subnet.Others(p.qemu.Network.Guest6)
	return outbound.Rules{Gateway: host, Gateway6: host6, Host: p.spec.Outbound == OutboundHost}
}

// ending reports whether QEMU is gone, going, or has announced that it goes.
func (v *vm) ending() bool {
	select {
	case <-v.proc.Done:
		return true
	default:
	}
	p, ok := sys.LookupProcess(v.proc.PID())
	return !ok || p.Exiting || v.shutdown.Load() != nil
}

// gone says why a prefetched machine does not wait any more; nil if it does.
func (v *vm) gone() error {
	select {
	case <-v.proc.Done: // somebody has killed it
		return v.proc.Describe()
	case <-v.agent.Done():
		return v.agent.Err()
	default:
	}
	if crash := v.console.Crash(); crash != "" {
		return errors.New(printable.Text(crash))
	}
	return nil
}

// Discard ends a machine that was never handed out, and leaves nothing of it but a record
// that somebody has asked for.
func (v *vm) Discard() {
	v.proc.Kill()
	<-v.drained
	<-v.agent.Done()
	v.filter.Wait()
	if v.qmp != nil {
		<-v.qmp.Done()
	}
	v.record.Close(false)
}
