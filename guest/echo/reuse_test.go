package echo_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"guesthouse.example/internal/apart"
)

// With few descriptors each connection gets the number of one that has just
// ended. Each client sends different bytes, and half of the clients reset their
// connection while an echo is on its way. No client may read another's bytes.
//
// Zephyr's issue 115800.
func TestTenThousandConnectionsOnFewDescriptorsGetTheirOwnBytes(t *testing.T) {
	apart.Run(t, testConnectionsOnFewDescriptors) // the limit belongs to the process
}

func testConnectionsOnFewDescriptors(t *testing.T) {
	const cycles, together = 10_000, 4
	s, con := start(t, 2*together)
	// Go's own poller needs descriptors too, so let it open them now.
	first := dial(t, "tcp", "::1", s)
	roundtrip(t, first, "x")
	require.NoError(t, first.Close())
	con.expect(t, "Connection from ::1 closed\n", 1)
	// Room for the clients' ends, the server's, and some that still close.
	next, err := unix.Dup(0)
	require.NoError(t, err)
	require.NoError(t, unix.Close(next))
	limit := unix.Rlimit{Cur: uint64(next + 2*together + 6), Max: uint64(next + 2*together + 6)}
	require.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &limit))

	to := &unix.SockaddrInet6{Port: s.Port(), Addr: [16]byte{15: 1}}
	patient := unix.NsecToTimeval(patience.Nanoseconds())
	clients := make([]int, together)
	for i := range clients {
		clients[i] = -1
	}
	text := func(client, round int) []byte { return fmt.Appendf(nil, "client %d in round %06d", client, round) }
	got := make([]byte, 64)
	for n := range cycles {
		at := n % together
		if fd := clients[at]; fd >= 0 {
			if n%2 == 0 { // an end with an echo on its way
				_, err := unix.Write(fd, []byte("stray bytes of one that leaves"))
				require.NoError(t, err)
			}
			// Every connection ends with a reset. Otherwise each would block
			// its port for a minute.
			require.NoError(t, unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}))
			require.NoError(t, unix.Close(fd))
		}
		fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		require.NoError(t, err)
		require.NoError(t, unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &patient))
		require.NoError(t, unix.Connect(fd, to))
		clients[at] = fd
		// Write to all open connections at once, so that an answer on a wrong
		// connection shows.
		open := clients[:min(n+1, together)]
		for i, fd := range open {
			_, err := unix.Write(fd, text(i, n))
			require.NoError(t, err)
		}
		for i, fd := range open {
			want := text(i, n)
			for have := 0; have < len(want); {
				k, err := unix.Read(fd, got[have:len(want)])
				if err == unix.EINTR {
					continue // Go's preemption; a socket with a timeout is not read again
				}
				require.NoError(t, err, "client %d in round %d", i, n)
				require.Positive(t, k, "client %d in round %d: the end", i, n)
				have += k
			}
			require.Equal(t, string(want), string(got[:len(want)]))
		}
	}
	for _, fd := range clients {
		_ = unix.Close(fd)
	}
	// The kernel has reused descriptor numbers. The server must not have kept any.
	for svc := range s.loop.All() {
		if svc.Name() == "service_tcp" {
			require.Eventually(t, func() bool { return len(svc.Sockets()) == 0 }, patience, time.Millisecond, "all clients have gone")
			return
		}
	}
	t.Fatal("there is no service of clients")
}
