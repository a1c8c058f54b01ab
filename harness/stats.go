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
		return Stats{}, fmt.Errorf("statistics of %s: %w", m.plan.name(), m.vm.OrCrash(ctx, err))
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
