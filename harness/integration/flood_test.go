package integration

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"guesthouse.example/harness/harnesstest"
)

// A guest that never stops sending events uses a bounded amount of the host's memory and disk. A test
// that reads the events late learns exactly how many it has missed.
func TestAFloodOfEventsIsBounded(t *testing.T) {
	t.Parallel()
	target := oneTarget(t)
	spec := harnesstest.Spec(t, target, "./guests/lost")
	spec.Ports = []string{"udp/4242", "tcp/4242"}
	m := harnesstest.Boot(t, spec)
	require.Equal(t, "set up", m.Event())
	require.Equal(t, "done", asked(t, m.Dial, "flood"))
	m.Stats() // its answer comes after all events
	_, err := m.Machine.Event(t.Context())
	require.ErrorContains(t, err, "events were dropped, because the guest sent them faster than they were taken")
	var dropped int
	_, err = fmt.Sscanf(err.Error(), "event of "+target+": %d events", &dropped)
	require.NoError(t, err)
	require.Greater(t, dropped, 200)
	for i := dropped; i < 400; i++ {
		require.True(t, strings.HasPrefix(m.Event(), fmt.Sprint(i, " x")), i)
	}
	require.Equal(t, "the last", m.Event())
}
