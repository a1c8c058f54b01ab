package harness

import (
	"context"
	"errors"
	"fmt"
	"time"

	"guesthouse.example/harness/internal/agent"
	"guesthouse.example/harness/internal/qemu"
	"guesthouse.example/internal/wire"
)

// errNoAgent says that the guest has no agent: its kernel has no driver for the port, or its init
// is not that of package images.
var errNoAgent = errors.New("the guest has no agent: it has not opened the port " + wire.PortName)

// agentWithin bounds an answer of the guest's agent, in the machine's time.
const agentWithin = 10 * time.Second

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
	ctx, cancel := m.unlessCrashed(ctx)
	defer cancel()
	ctx, cancel = m.Within(ctx, agentWithin)
	defer cancel()
	err := m.awaitAgent(ctx)
	var s wire.Stats
	if err == nil {
		s, err = m.agent.Stats(ctx)
	}
	if err != nil {
		return Stats{}, fmt.Errorf("statistics of %s: %w", m.plan.spec.Target, m.orCrash(ctx, err))
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
	ctx, cancel := m.unlessCrashed(ctx)
	defer cancel()
	for present := false; ; {
		text, dropped, ok, told := m.agent.NextEvent()
		switch {
		case dropped > 0:
			return "", fmt.Errorf("event of %s: %d events were dropped, because the guest told them faster than they were taken", m.plan.spec.Target, dropped)
		case ok:
			return text, nil
		}
		if !present {
			if err := m.awaitAgent(ctx); err != nil {
				return "", fmt.Errorf("event of %s: %w", m.plan.spec.Target, err)
			}
			present = true
			continue
		}
		select {
		case <-told:
		case <-m.agent.Done():
			select {
			case <-told: // the last event before the end
			default:
				return "", fmt.Errorf("event of %s: %w", m.plan.spec.Target, m.orCrash(ctx, m.agent.Err()))
			}
		case <-ctx.Done():
			return "", fmt.Errorf("event of %s: none was told: %w", m.plan.spec.Target, context.Cause(ctx))
		}
	}
}

// awaitAgent waits for the hello of the guest's agent. It fails at once with errNoAgent if the
// guest has not opened the port.
func (v *vm) awaitAgent(ctx context.Context) error {
	if v.agent.Present() {
		return nil
	}
	var devices []struct {
		Label string `json:"label"`
		Open  bool   `json:"frontend-open"`
	}
	if err := v.qmp.Execute(ctx, "query-chardev", nil, &devices); err != nil {
		return err
	}
	for _, d := range devices {
		if d.Label == qemu.AgentDevice && d.Open {
			return v.agent.AwaitHello(ctx)
		}
	}
	return errNoAgent
}

// quiesce waits until all programs of the guest stand still and its agent says nothing more, and
// returns what a template keeps of the conversation. It notes in r what has to be undone.
func (v *vm) quiesce(ctx context.Context, r *resumption) (*agent.Saved, error) {
	ctx, cancel := v.within(ctx, agentWithin)
	defer cancel()
	if err := v.awaitAgent(ctx); err != nil {
		return nil, err
	}
	var err error
	if r.pause, err = v.agent.Quiesce(ctx); err != nil {
		return nil, err
	}
	if err := r.pause.Wait(ctx); err != nil {
		return nil, err
	}
	return v.agent.Saved(), nil
}

// reseed gives a guest that was saved, in this machine or in another, new entropy, the host's clock
// and a new boot identity, and lets its programs go on. With resume, the guest's program then does what
// it gave to guest.OnRestore; a prefetched guest does that later.
func (v *vm) reseed(ctx context.Context, resume bool) error {
	ctx, cancel := v.within(ctx, agentWithin)
	defer cancel()
	late, err := v.agent.Reseed(ctx, resume)
	v.clockLate.Store(int64(late))
	return err
}
