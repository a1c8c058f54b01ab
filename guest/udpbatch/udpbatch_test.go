package udpbatch_test

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"guesthouse.example/guest/udpbatch"
)

// socket returns a non-blocking socket on the loopback of its family, and its
// address.
func socket(t testing.TB, family int) (fd int, addr netip.AddrPort) {
	t.Helper()
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	t.Cleanup(func() { _ = unix.Close(fd) })
	if family == unix.AF_INET {
		require.NoError(t, unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	} else {
		require.NoError(t, unix.Bind(fd, &unix.SockaddrInet6{Addr: [16]byte{15: 1}}))
	}
	sa, err := unix.Getsockname(fd)
	require.NoError(t, err)
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return fd, netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		return fd, netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port))
	}
	panic("unreachable")
}

var families = map[string]int{"IPv4": unix.AF_INET, "IPv6": unix.AF_INET6}

// The loopback interface delivers before the sending call returns, so the test need not wait.
func TestEchoThroughTwoBatches(t *testing.T) {
	for name, family := range families {
		t.Run(name, func(t *testing.T) {
			server, at := socket(t, family)
			client, from := socket(t, family)
			ours, theirs := udpbatch.New(4, 100), udpbatch.New(16, 100)
			_, err := ours.Receive(server)
			require.Equal(t, unix.EAGAIN, err)

			var msgs [10]udpbatch.Message // more than the server's batch
			for i := range msgs {
				msgs[i].Data = fmt.Append(nil, "message ", i)
				msgs[i].SetAddr(at)
				require.Equal(t, at, msgs[i].Addr())
			}
			msgs[5].Data = nil // an empty datagram is one too
			sent, err := theirs.Send(client, msgs[:])
			require.NoError(t, err)
			require.Equal(t, len(msgs), sent)

			for _, want := range []int{4, 4, 2} {
				got, err := ours.Receive(server)
				require.NoError(t, err)
				require.Len(t, got, want)
				for i := range got {
					require.Equal(t, from, got[i].Addr())
				}
				sent, err := ours.Send(server, got)
				require.NoError(t, err)
				require.Equal(t, want, sent)
			}
			got, err := theirs.Receive(client)
			require.NoError(t, err)
			require.Len(t, got, len(msgs))
			for i := range got {
				require.Equal(t, string(msgs[i].Data), string(got[i].Data))
				require.False(t, got[i].Truncated)
				require.Equal(t, at, got[i].Addr())
			}
		})
	}
}

func TestTruncated(t *testing.T) {
	server, at := socket(t, unix.AF_INET6)
	b := udpbatch.New(2, 8)
	m := make([]udpbatch.Message, 2)
	m[0].Data, m[1].Data = []byte("123456789"), []byte("12345678")
	m[0].SetAddr(at)
	m[1].SetAddr(at)
	_, err := b.Send(server, m)
	require.NoError(t, err)
	got, err := b.Receive(server)
	require.NoError(t, err)
	require.True(t, got[0].Truncated)
	require.False(t, got[1].Truncated)
	require.Equal(t, got[0].Data, got[1].Data)
}

func TestSendStopsAtARefusedMessage(t *testing.T) {
	server, at := socket(t, unix.AF_INET6)
	b := udpbatch.New(4, 8)
	m := make([]udpbatch.Message, 3)
	m[0].SetAddr(at)
	m[1].SetAddr(netip.AddrPortFrom(at.Addr(), 0)) // no port to send to
	m[2].SetAddr(at)
	sent, err := b.Send(server, m)
	require.Equal(t, 1, sent)
	require.Equal(t, unix.EINVAL, err)
	sent, err = b.Send(server, m[sent+1:])
	require.NoError(t, err)
	require.Equal(t, 1, sent)
}

func TestNoAllocation(t *testing.T) {
	server, at := socket(t, unix.AF_INET6)
	b := udpbatch.New(4, 64)
	m := make([]udpbatch.Message, 4)
	for i := range m {
		m[i].Data = make([]byte, 64)
		m[i].SetAddr(at)
	}
	require.Zero(t, testing.AllocsPerRun(100, func() {
		_, _ = b.Send(server, m)
		got, _ := b.Receive(server)
		if len(got) != len(m) {
			t.Error("lost")
		}
		_, _ = b.Receive(server) // EAGAIN
	}))
}

func TestNewPanicsWithoutRoom(t *testing.T) {
	require.Panics(t, func() { udpbatch.New(0, 1) })
	require.Panics(t, func() { udpbatch.New(1, 0) })
}
