package harness

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
)

// errNoRoom is why a crowded network refuses machines.
var errNoRoom = errors.New("no room")

type crowded struct{}

func (crowded) Attach(string) (Attachment, error) { return nil, errNoRoom }

func TestNetworksExcludeOtherFields(t *testing.T) {
	for says, s := range map[string]Spec{
		"at most 8":   {Net: make([]Network, 9)},
		"is nil":      {Net: []Network{crowded{}, nil}},
		"needs none":  {Net: []Network{crowded{}}, Ports: []string{"udp/4242"}},
		"nothing els": {Net: []Network{crowded{}}, Outbound: OutboundHost},
	} {
		s.Target, s.Kernel = "arm64", "vmlinuz"
		require.ErrorContains(t, s.Validate(), says)
	}
	s := Spec{Target: "arm64", Kernel: "vmlinuz", Net: []Network{crowded{}}, Outbound: OutboundNone}
	require.NoError(t, s.Validate())
	_, err := s.Command()
	require.Error(t, err)
}
