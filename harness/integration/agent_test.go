package integration

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"guesthouse.example/harness/harnesstest"
)

// what the guest "lost" says of itself
type saying struct {
	clock        time.Time
	random, boot string
}

func asks(t *testing.T, m *harnesstest.Machine) (s saying) {
	t.Helper()
	conn := m.Dial("udp", echoPort)
	require.NoError(t, conn.SetDeadline(time.Now().Add(4*harnesstest.Within)))
	_, err := conn.Write([]byte("?"))
	require.NoError(t, err)
	answer := make([]byte, 200)
	n, err := conn.Read(answer)
	require.NoError(t, err)
	var clock int64
	_, err = fmt.Sscan(string(answer[:n]), &clock, &s.random, &s.boot)
	require.NoError(t, err, "%q", answer[:n])
	s.clock = time.Unix(0, clock)
	return s
}

// Two machines of one template, and the machine that was saved, have clocks,
// random numbers and identities of their own.
func TestARestoredMachineHasALifeOfItsOwn(t *testing.T) {
	harnesstest.EachTarget(t, func(t *testing.T, target string) {
		spec := harnesstest.Spec(t, target, "./guests/lost")
		spec.Ports = []string{"udp/4242"}
		begin := time.Now()
		original, template := save(t, spec)
		spec.Template = template
		random, boots := map[string]bool{}, map[string]bool{}
		for _, m := range []*harnesstest.Machine{original, restored(t, spec), restored(t, spec)} {
			s := asks(t, m)
			now := time.Now()
			require.False(t, s.clock.Before(begin), "its clock says %v, and it was set after %v", s.clock, begin)
			require.False(t, s.clock.After(now.Add(time.Second)), "its clock says %v at %v", s.clock, now)
			random[s.random], boots[s.boot] = true, true

			stats, err := m.Stats(t.Context())
			require.NoError(t, err)
			require.Equal(t, s.boot, stats.BootID)
		}
		require.Len(t, random, 3)
		require.Len(t, boots, 3)
	})
}

func TestAMachineTellsWhatItDoes(t *testing.T) {
	harnesstest.EachTarget(t, func(t *testing.T, target string) {
		spec := echoSpec(t, target)
		m := harnesstest.Boot(t, spec)
		before, err := m.Stats(t.Context())
		require.NoError(t, err)
		conn := m.Dial("udp", echoPort)
		echoes(t, conn, "hello")
		echoes(t, conn, "again") // by then the first call is counted
		after, err := m.Stats(t.Context())
		require.NoError(t, err)

		require.Equal(t, before.BootID, after.BootID)
		require.Greater(t, after.Uptime, before.Uptime)
		spent := uint64(m.Spec().Memory)<<20 - after.MemoryTotal
		require.Less(t, spent, uint64(128<<20), "the kernel keeps some of the machine's memory to itself")
		require.Less(t, after.MemoryFree, after.MemoryTotal)
		require.NotEmpty(t, after.Services)
		var calls uint64
		var sockets int
		for i, svc := range after.Services {
			require.Equal(t, before.Services[i].Name, svc.Name)
			sockets += svc.Sockets
			calls += svc.Calls - before.Services[i].Calls
		}
		require.Positive(t, calls)
		require.Positive(t, sockets)
		m.Shutdown()
	})
}
