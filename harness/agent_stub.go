package harness

import (
	"context"
	"errors"
)

// The agent is the part of the guest that gives a restored machine new entropy,
// the host's clock and a boot identity of its own. No guest has one yet: until
// then a TemplateCache makes templates only with AnyGuest.
const guestsHaveAgents = false

var errNoAgent = errors.New("the guest has no agent")

// agentQuiesce makes the guest ready to be saved.
func (m *Machine) agentQuiesce(context.Context) error { return errNoAgent }

// agentRestored returns when a guest that was saved is itself again.
func (m *Machine) agentRestored(context.Context) error { return errNoAgent }
