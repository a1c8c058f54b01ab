package harness

import (
	"encoding/json"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
)

// errNoRoom is why a crowded network refuses machines.
var errNoRoom = errors.New("no room")

type crowded struct{}

func (crowded) Attach(string) (Attachment, error) { return nil, errNoRoom }

func (crowded) String() string { return "crowded" }

func TestNetworksExcludeOtherFields(t *testing.T) {
	for says, s := range map[string]Spec{
		"at most 8":   {Net: make([]Network, 9)},
		"is nil":      {Net: []Network{crowded{}, nil}},
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

// A record names its networks, and a machine boots on none of them by mistake.
func TestARecordNamesItsNetworks(t *testing.T) {
	text, err := json.Marshal(Spec{Target: "arm64", Kernel: "vmlinuz", Net: []Network{crowded{}, crowded{}}, Ports: []string{"udp/4242"}})
	require.NoError(t, err)
	s, err := DecodeSpec(text)
	require.NoError(t, err)
	require.Equal(t, []Network{RecordedNetwork("crowded"), RecordedNetwork("crowded")}, s.Net)
	_, err = s.Net[0].Attach("")
	require.ErrorContains(t, err, `"crowded" is that of a record`)
	again, err := json.Marshal(s)
	require.NoError(t, err)
	require.Equal(t, string(text), string(again))
}
