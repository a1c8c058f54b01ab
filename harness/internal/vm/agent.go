package vm

import (
	"context"
	"errors"
	"time"

	"guesthouse.example/harness/internal/agent"
	"guesthouse.example/harness/internal/qemu"
	"guesthouse.example/internal/wire"
)

// ErrNoAgent says that the guest has no agent: its kernel has no driver for the agent's port, or its
// init is not the one of package images.
var ErrNoAgent = errors.New("the guest has no agent: it has not opened the port " + wire.PortName)

// AgentWithin bounds an answer of the guest's agent, in the machine's time.
const AgentWithin = 10 * time.Second

// AwaitAgent waits for the hello of the guest's agent. It fails at once with ErrNoAgent if the
// guest has not opened the port.
func (v *VM) AwaitAgent(ctx context.Context) error {
	if v.Agent.Present() {
		return nil
	}
	var devices []struct {
		Label string `json:"label"`
		Open  bool   `json:"frontend-open"`
	}
	if err := v.QMP.Execute(ctx, "query-chardev", nil, &devices); err != nil {
		return err
	}
	for _, d := range devices {
		if d.Label == qemu.AgentDevice && d.Open {
			return v.Agent.AwaitHello(ctx)
		}
	}
	return ErrNoAgent
}

// quiesce makes the guest's agent stop all programs and send nothing more. It returns the state of the
// agent's line for a template, and notes in r what must be undone.
func (v *VM) quiesce(ctx context.Context, r *resumption) (*agent.Saved, error) {
	ctx, cancel := v.Within(ctx, AgentWithin)
	defer cancel()
	if err := v.AwaitAgent(ctx); err != nil {
		return nil, err
	}
	var err error
	if r.pause, err = v.Agent.Quiesce(ctx); err != nil {
		return nil, err
	}
	if err := r.pause.Wait(ctx); err != nil {
		return nil, err
	}
	return v.Agent.Saved(), nil
}

// reseed gives a guest that was saved, in this machine or in another, new entropy, the host's clock
// and a new boot identity, and lets its programs go on. If the network has cards, it replaces the guest's: a
// machine that goes on after Save keeps what it has. If resume is true, the guest's program then runs
// its functions for guest.OnRestore; a prefetched guest runs them in Continue.
func (v *VM) reseed(ctx context.Context, network wire.Network, resume bool) error {
	ctx, cancel := v.Within(ctx, AgentWithin)
	defer cancel()
	late, err := v.Agent.Reseed(ctx, network, resume)
	v.clockLate.Store(int64(late))
	return err
}
