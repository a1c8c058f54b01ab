package harness

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"guesthouse.example/internal/wire"
)

func TestStatsAreThoseOfTheAgent(t *testing.T) {
	require.Equal(t, Stats{BootID: "00000000-0000-0000-0000-000000000000", Uptime: time.Second, MemoryTotal: 2, MemoryFree: 1,
		Services: []ServiceStats{{Name: "echo", Sockets: 2}}},
		statsOf(wire.Stats{Uptime: time.Second, MemoryTotal: 2, MemoryAvail: 1, Services: []wire.Service{{Name: "echo", Sockets: 2}}}))
}
