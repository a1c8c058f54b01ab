package harness

import (
	"context"
	"fmt"
	"time"

	"guesthouse.example/harness/internal/vm"
	"guesthouse.example/internal/wire"
)

// Stats is what a guest tells of itself.
type Stats struct {
	BootID                  string        // guest.BootID: of this boot or restore
	Uptime                  time.Duration // since the kernel started, without the time for which the machine was saved
	MemoryTotal, MemoryFree uint64        // bytes; free is MemAvailable in /proc/meminfo
	Services                []ServiceStats
}

// ServiceStats is what package guest/socketservice counts of a socket service.
type ServiceStats struct {
	Name          string
	Sockets       int
	Calls, Errors uint64
	Time, MaxTime time.Duration // in its handler: the total and the longest call
}

// Stats asks the guest's agent for statistics. It waits at most 10 s of the machine's time for the
// answer, and while Save runs. It fails at once if the guest has no agent or has crashed.
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

// Event returns the next event that the guest tells with guest.Event, in the order in which the
// guest tells them. It waits until there is one, until ctx ends, or until the guest crashes or the
// machine ends. It fails at once if the guest has no agent. A restored machine begins with the
// events of the machine that was saved.
//
// The newest 65,536 events and 8 MiB of their texts are kept. If older events were dropped before
// they were taken, Event fails once and says how many. The next call returns the oldest event that
// is kept.
func (m *Machine) Event(ctx context.Context) (string, error) {
	ctx, cancel := m.vm.UnlessCrashed(ctx)
	defer cancel()
	for present := false; ; {
		text, dropped, ok, told := m.vm.Agent.NextEvent()
		switch {
		case dropped > 0:
			return "", fmt.Errorf("event of %s: %d events were dropped, because the guest told them faster than they were taken", m.plan.spec.Target, dropped)
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
		case <-told:
		case <-m.vm.Agent.Done():
			select {
			case <-told: // the last event before the end
			default:
				return "", fmt.Errorf("event of %s: %w", m.plan.spec.Target, m.vm.OrCrash(ctx, m.vm.Agent.Err()))
			}
		case <-ctx.Done():
			return "", fmt.Errorf("event of %s: none was told: %w", m.plan.spec.Target, context.Cause(ctx))
		}
	}
}
