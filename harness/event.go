package harness

import (
	"context"
	"fmt"
)

// Event returns the next event that the guest has sent with guest.Event, in their order. If there is
// none, Event waits until ctx ends, the guest crashes or the machine ends. It fails at once if the guest
// has no agent. A restored machine begins with the events of the machine that was saved.
//
// The harness keeps the newest 65,536 events and at most 8 MiB of their texts. If events were dropped
// before Event returned them, one call fails with their number. The next call returns the oldest event
// that is kept.
func (m *Machine) Event(ctx context.Context) (string, error) {
	ctx, cancel := m.vm.UnlessCrashed(ctx)
	defer cancel()
	for present := false; ; {
		text, dropped, ok, sent := m.vm.Agent.NextEvent()
		switch {
		case dropped > 0:
			return "", fmt.Errorf("event of %s: %d events were dropped, because the guest sent them faster than they were taken", m.plan.name(), dropped)
		case ok:
			return text, nil
		}
		if !present {
			if err := m.vm.AwaitAgent(ctx); err != nil {
				return "", fmt.Errorf("event of %s: %w", m.plan.name(), err)
			}
			present = true
			continue
		}
		select {
		case <-sent:
		case <-m.vm.Agent.Done():
			select {
			case <-sent: // the last event before the end
			default:
				return "", fmt.Errorf("event of %s: %w", m.plan.name(), m.vm.OrCrash(ctx, m.vm.Agent.Err()))
			}
		case <-ctx.Done():
			return "", fmt.Errorf("event of %s: the guest has sent none: %w", m.plan.name(), context.Cause(ctx))
		}
	}
}
