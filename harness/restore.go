package harness

import (
	"context"
	"fmt"
	"runtime"
	"strings"

	"guesthouse.example/harness/internal/qemu"
	"guesthouse.example/harness/internal/qmp"
	"guesthouse.example/internal/printable"
)

// fits says why the plan's machine cannot be restored from the template; nil if
// it can.
func (t *Template) fits(p *plan) error {
	if why := p.noTemplate(); why != "" {
		return fmt.Errorf("%s", why)
	}
	id, err := p.identity()
	if err != nil {
		return err
	}
	if part := t.Of.differs(id); part != "" {
		return templateFault{fmt.Errorf("the template is of another %s", part)}
	}
	return nil
}

// restoring holds a token for each machine that is just being restored for somebody. That is work
// for a processor: on two of them 32 machines had answered after 2.4 s with 2 to 4 tokens and
// after 2.8 without.
var restoring = make(chan struct{}, runtime.GOMAXPROCS(0)+1)

// restore brings the stopped machine to where its template was saved, and lets
// it run. No packet reaches the guest before it has said that it is itself
// again: QEMU listens on no port until then.
func (m *Machine) restore(ctx context.Context, t *Template) error {
	if v := m.qmp.Version(); v != t.Version {
		return templateFault{fmt.Errorf("the template was saved by QEMU %s and this is %s", t.Version, v)}
	}
	err := m.qmp.ExecuteAll(ctx,
		qmp.Command{Name: "migrate-set-capabilities", Arguments: ignoreShared},
		qmp.Command{Name: "migrate-incoming", Arguments: map[string]string{"uri": fmt.Sprintf("fd:%d", qemu.StateFD)}})
	if err == nil {
		err = m.qmp.ExecuteAfter(ctx, func() error { return m.migrated(ctx) }, qmp.Command{Name: "cont"})
	}
	if err != nil {
		return m.loadFailed(err)
	}
	m.forwards, err = m.forward(ctx, m.plan.qemu.Forwards, func() error {
		if t.Agent == nil {
			return nil
		}
		if err := m.reseed(ctx); err != nil {
			return m.wakeFailed(err)
		}
		return nil
	})
	return err
}

// forward has QEMU forward the guest's ports as soon as after returns nil, or at once if
// that is nil, and returns them with the host's.
func (m *Machine) forward(ctx context.Context, ports []qemu.Forward, after func() error) ([]qemu.Forward, error) {
	said := make([]string, len(ports))
	var commands []qmp.Command
	for i, port := range ports {
		commands = append(commands, qmp.Human(m.plan.qemu.Network.AddCommand(port), &said[i]))
	}
	// What the guest has sent by then is with QEMU before the first datagram for it comes: with its
	// announcement QEMU need not ask where the guest is.
	ready := func() (err error) {
		if after != nil {
			err = after()
		}
		m.filter.Flush()
		return err
	}
	var table string
	if err := m.qmp.ExecuteAfter(ctx, ready, append(commands, usernet(&table))...); err != nil {
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
