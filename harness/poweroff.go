package harness

import (
	"context"
	"fmt"
	"time"
)

// patience is how long, in the machine's time, a guest that was asked to power off may
// take until it is asked in another way.
const patience = 5 * time.Second

// Shutdown asks the guest to power off and waits until it has. Its agent is asked. It has a
// program of package guest end its socket services, whatever runs in the guest's shell, and any
// other program end by SIGTERM; one that does not end within 3 s is killed. Then the network is
// taken down and the machine powers off. The program's exit status, which is in the Result, is no
// failure then. Where there is no agent, or it does not obey within 5 s of the
// machine's time, the power button is pressed (QEMU's system_powerdown) and the command
// "poweroff" typed on the console, and the record's agent.log says so and why.
//
// When ctx ends first the machine is ended by force, and the error says so and in which way it
// was asked. So it is when the guest crashes. A guest that knows neither is ended with Close.
func (m *Machine) Shutdown(ctx context.Context) error {
	defer m.closeWithin(ctx)
	alive, cancel := m.unlessCrashed(ctx)
	defer cancel()
	how := "its agent"
	err := m.agentPowerOff(alive)
	if err == nil {
		err = m.endsWithin(alive, patience)
	}
	if m.runs() && alive.Err() == nil {
		how = fmt.Sprintf("the power button and its console, because its agent could not: %v", err)
		m.agent.Remark("power-off by " + how)
		m.pressAndType(alive)
	}
	select {
	case <-m.ended:
		return m.err
	case <-alive.Done():
	}
	if err := m.crashed(); err != nil {
		return fmt.Errorf("shut down %s: %w", m.plan.spec.Target, err)
	}
	return fmt.Errorf("shut down %s: the guest, asked by %s, has not powered off and was ended by force: %w",
		m.plan.spec.Target, how, context.Cause(ctx))
}

// agentPowerOff asks the guest's agent, which does not answer but obeys.
func (m *Machine) agentPowerOff(ctx context.Context) error {
	ctx, cancel := m.Within(ctx, patience)
	defer cancel()
	if err := m.awaitAgent(ctx); err != nil {
		return err
	}
	return m.agent.PowerOff(ctx)
}

// pressAndType asks a guest without an agent. Each of the two may be nothing to it.
func (m *Machine) pressAndType(ctx context.Context) {
	m.typedOff.Store(true)
	m.qmp.Execute(ctx, "system_powerdown", nil, nil)
	// Ctrl-U drops a half-typed line. What was typed before is still
	// carried out; only if that takes long does Ctrl-C end what runs in the
	// foreground.
	for _, line := range []string{"\x15poweroff", "\x03\x15poweroff"} {
		if err := m.console.Send(ctx, line); err != nil {
			return // the line ends shortly before the machine does
		}
		if m.endsWithin(ctx, patience) == nil {
			return
		}
	}
}

// endsWithin waits for the machine's end.
func (m *Machine) endsWithin(ctx context.Context, d time.Duration) error {
	ctx, cancel := m.Within(ctx, d)
	defer cancel()
	select {
	case <-m.ended:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("it was asked and has not powered off: %w", context.Cause(ctx))
	}
}

// runs says whether the machine has not ended.
func (m *Machine) runs() bool {
	select {
	case <-m.ended:
		return false
	default:
		return true
	}
}
