package harness

import (
	"context"
	"fmt"
	"time"

	"guesthouse.example/harness/internal/vm"
	"guesthouse.example/internal/wire"
)

// Stats are the statistics that a guest's agent reports.
type Stats struct {
	BootID                  string        // guest.BootID; each boot and each restore has its own
	Uptime                  time.Duration // since the kernel started, without the time for which the machine was saved
	MemoryTotal, MemoryFree uint64        // bytes; free is MemAvailable in /proc/meminfo
	Services                []ServiceStats
}

// ServiceStats are the statistics of a socket service; see package guest/socketservice.
type ServiceStats struct {
	Name          string
	Sockets       int
	Calls, Errors uint64
	Time, MaxTime time.Duration // in its handler: the total and the longest call
}

// Stats asks the guest's agent for statistics. It waits for the answer, and for a running Save, for at
// most 10 s of the machine's time. It fails at once if the guest has no agent or has crashed.
func (m *Machine) Stats(ctx context.Context) (Stats, error) {
	ctx, cancel := m.vm.UnlessCrashed(ctx)
	defer cancel()
	ctx, cancel = m.Within(ctx, vm.AgentWithin)
	defer cancel()
	err := m.vm.AwaitAgent(ctx)
	var s wire.Stats
	if err == nil {
		s, err = m.vm.Agent.Stats(ctx)
	}
	if err != nil {
		return Stats{}, fmt.Errorf("statistics of %s: %w", m.plan.spec.Target, m.vm.OrCrash(ctx, err))
	}
	return statsOf(s), nil
}

func statsOf(w wire.Stats) Stats {
	s := Stats{BootID: w.Boot.String(), Uptime: w.Uptime, MemoryTotal: w.MemoryTotal, MemoryFree: w.MemoryAvail}
	for _, svc := range w.Services {
		s.Services = append(s.Services, ServiceStats{Name: svc.Name, Sockets: int(svc.Sockets),
			Calls: svc.Calls, Errors: svc.Errors, Time: svc.Time, MaxTime: svc.MaxTime})
	}
	return s
}

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
			return "", fmt.Errorf("event of %s: %d events were dropped, because the guest sent them faster than they were taken", m.plan.spec.Target, dropped)
		case ok:
			return text, nil
		}
		if !present {
			if err := m.vm.AwaitAgent(ctx); err != nil {
				return "", fmt.Errorf("event of %s: %w", m.plan.spec.Target, err)
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
				return "", fmt.Errorf("event of %s: %w", m.plan.spec.Target, m.vm.OrCrash(ctx, m.vm.Agent.Err()))
			}
		case <-ctx.Done():
			return "", fmt.Errorf("event of %s: the guest has sent none: %w", m.plan.spec.Target, context.Cause(ctx))
		}
	}
}
