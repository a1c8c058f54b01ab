package echo_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"guesthouse.example/guest/socketservice"
	"guesthouse.example/internal/apart"
)

// service returns one of the server's services.
func (r *rig) service(t testing.TB, name string) *socketservice.Service {
	t.Helper()
	for s := range r.loop.All() {
		if s.Name() == name {
			return s
		}
	}
	require.FailNow(t, "no such service", name)
	return nil
}

func (r *rig) stats(t testing.TB, service string) socketservice.Stats {
	t.Helper()
	return r.service(t, service).Stats()
}

// calls returns how often a service's handler was called.
func (r *rig) calls(t testing.TB, service string) uint64 {
	t.Helper()
	return r.stats(t, service).Calls
}

// The limit of descriptors holds for the whole process, and other tests need descriptors.
func TestAcceptOutOfDescriptorsKeepsTheListener(t *testing.T) {
	apart.Run(t, testAcceptOutOfDescriptorsKeepsTheListener)
}

func testAcceptOutOfDescriptorsKeepsTheListener(t *testing.T) {
	s, con := start(t, 4)
	first := dial(t, "tcp", "::1", s)
	roundtrip(t, first, "x")
	// One descriptor is left, for the next client's end. There is none for the
	// server's end.
	next, err := unix.Dup(0)
	require.NoError(t, err)
	require.NoError(t, unix.Close(next))
	limit := unix.Rlimit{Cur: uint64(next + 1), Max: uint64(next + 1)}
	require.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &limit))
	second := dial(t, "tcp", "::1", s)
	con.expect(t, "<err> net_echo_server_svc_sample: accept: -24. Retrying.\n", 1)

	before := s.calls(t, "service_accept")
	for range 5000 {
		roundtrip(t, first, "others are served meanwhile")
	}
	require.Less(t, s.calls(t, "service_accept")-before, uint64(100), "the listener spins")
	require.Equal(t, 1, strings.Count(con.String(), "accept:"), "one shortage, one line")

	require.NoError(t, first.Close())
	con.expect(t, "Connection from ::1 closed\n", 1)
	roundtrip(t, second, "served at last")
	con.expect(t, "Connection from ::1 (", 2)

	// The loop polls the listener again, and the server reports the next shortage.
	third := dial(t, "tcp", "::1", s)
	con.expect(t, "accept: -24. Retrying.\n", 2)
	require.NoError(t, second.Close())
	roundtrip(t, third, "served too")
}
