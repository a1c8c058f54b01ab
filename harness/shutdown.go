package harness

import (
	"context"
	"fmt"
	"time"
)

// patience is how long, in the machine's time, Shutdown waits for a power-off before it tries another way.
const patience = 5 * time.Second

// Shutdown asks the guest's agent to power the machine off and waits until it has. The agent first ends
// the guest's program: a program of package guest ends its socket services, even while a command runs
// in the guest's shell, and any other program gets SIGTERM. The agent kills a program that does not end
// within 3 s. Then it takes the network down and powers the machine off. The program's exit status is in
// the Result and is no failure.
//
// If there is no agent, or the machine does not power off within 5 s of its time, Shutdown presses the power
// button (QEMU's system_powerdown) and types "poweroff" on the console. The record's agent.log says so
// and why.
//
// A board has no agent. If its system has a command that powers it off, Shutdown types the command and waits up
// to 5 s of the machine's time. Otherwise, and if the machine still runs then, Shutdown ends it by force, which
// is no error.
//
// If ctx ends first, or the guest crashes, Shutdown ends the machine by force and returns an error. To end
// a guest that cannot power off, use Close.
func (m *Machine) Shutdown(ctx context.Context) error {
	defer m.closeWithin(ctx)
	if m.plan.board != nil {
		return m.shutBoardDown(ctx)
	}
	alive, cancel := m.vm.UnlessCrashed(ctx)
	defer cancel()
	asked := "its agent"
	err := m.agentPowerOff(alive)
	if err == nil {
		err = m.endsWithin(alive, patience)
	}
	if m.runs() && alive.Err() == nil {
		asked = fmt.Sprintf("the power button and its console, because its agent could not: %v", err)
		m.vm.Agent.Remark("power-off by " + asked)
		m.pressAndType(alive)
	}
	select {
	case <-m.ended:
		return m.err
	case <-alive.Done():
	}
	if err := m.vm.Crashed(); err != nil {
		return fmt.Errorf("shut down %s: %w", m.plan.name(), err)
	}
	return fmt.Errorf("shut down %s: the guest, asked by %s, has not powered off and was ended by force: %w",
		m.plan.name(), asked, context.Cause(ctx))
}

// shutBoardDown ends a board's machine: by its system's command if there is one, and otherwise by force.
func (m *Machine) shutBoardDown(ctx context.Context) error {
	alive, cancel := m.vm.UnlessCrashed(ctx)
	defer cancel()
	if command := m.plan.board.PowerOff; command != "" && m.runs() {
		m.typedOff.Store(true)
		if m.vm.Console.Send(alive, command) == nil { // the serial line may end before the line was typed
			m.endsWithin(alive, patience)
		}
	}
	if err := m.vm.Crashed(); err != nil {
		return fmt.Errorf("shut down %s: %w", m.plan.name(), err)
	}
	if !m.runs() {
		return m.err
	}
	return context.Cause(ctx)
}

// agentPowerOff asks the guest's agent, which powers the machine off and does not answer.
func (m *Machine) agentPowerOff(ctx context.Context) error {
	ctx, cancel := m.Within(ctx, patience)
	defer cancel()
	if err := m.vm.AwaitAgent(ctx); err != nil {
		return err
	}
	return m.vm.Agent.PowerOff(ctx)
}

// pressAndType presses the power button and types poweroff, for a guest without an agent. The guest may
// ignore the button, the command or both.
func (m *Machine) pressAndType(ctx context.Context) {
	m.typedOff.Store(true)
	m.vm.QMP.Execute(ctx, "system_powerdown", nil, nil)
	// Ctrl-U drops a half-typed line. Commands that were typed before still run. If they take
	// long, Ctrl-C ends the one in the foreground.
	for _, line := range []string{"\x15poweroff", "\x03\x15poweroff"} {
		if err := m.vm.Console.Send(ctx, line); err != nil {
			return // the serial line ends shortly before QEMU exits
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

// runs reports whether the machine has not ended.
func (m *Machine) runs() bool {
	select {
	case <-m.ended:
		return false
	default:
		return true
	}
}
