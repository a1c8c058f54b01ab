package socketservice

import (
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// The tests that Zephyr has for this API, in tests/net/socket/service, by what
// they are called there or do.

// test_service_sync: a stream and a datagram socket in one service; registered,
// served, registered again with one of them, unregistered.
func TestZephyr_Basic(t *testing.T) {
	l := newLoop(t, Config{})
	handler, calls := record()
	s := l.Define("service_sync", handler, 2)
	require.NoError(t, l.Start())
	udp, udpPeer := socketpair(t)
	tcp, tcpPeer := pair(t, unix.SOCK_STREAM)
	exchange := func() {
		t.Helper()
		for _, p := range []struct{ ours, peer int32 }{{udp, udpPeer}, {tcp, tcpPeer}} {
			send(t, p.peer, "hello")
			got := await(t, calls)
			require.Equal(t, "hello", got.text)
			require.Equal(t, p.ours, got.Fd)
			require.Equal(t, "user data", got.UserData)
		}
	}
	require.NoError(t, s.Register(in(udp, tcp), "user data"))
	exchange()
	require.NoError(t, s.Register(in(tcp, udp), "user data"), "again, in another order")
	exchange()
	require.NoError(t, s.Unregister())
	send(t, udpPeer, "to nobody")
	barrier(t, l)
	none(t, calls)
	require.NoError(t, s.Register(in(udp), nil))
	require.Equal(t, "to nobody", await(t, calls).text)
}

func TestZephyr_PollErrorRecovery_75364(t *testing.T) {
	log, lines := records()
	l, newest := newFakeLoop(t, Config{Logger: log})
	handler, calls := record()
	s := l.Define("a", handler, 1)
	require.NoError(t, l.Start())
	require.NoError(t, s.Register(in(1001), nil))
	for range 3 {
		newest().fail(unix.EINVAL)
		require.Contains(t, await(t, lines), `msg="poll failed"`)
		newest().fire(1001)
		require.EqualValues(t, 1001, await(t, calls).Fd)
	}
}

func TestZephyr_CloseFromTheCallback(t *testing.T) {
	l := newLoop(t, Config{})
	calls := make(chan int, 10)
	s := l.Define("a", func(ev *Event) {
		calls <- len(ev.Service.Sockets())
		if err := ev.Service.Close(); err != nil {
			t.Error(err)
		}
		if !isOpen(int(ev.Fd)) {
			t.Error("closed while its handler runs")
		}
		read(ev.Fd)
	}, 1)
	require.NoError(t, l.Start())
	for range 3 {
		ours, peer := pair(t, unix.SOCK_STREAM)
		require.NoError(t, s.Register(in(ours), nil))
		send(t, peer, "x")
		require.Equal(t, 1, await(t, calls))
		barrier(t, l)
		closed(ours)
		require.Empty(t, read(peer), "the end, and no reset")
	}
	none(t, calls)
}

// All sockets are ready at once; the first handler closes all of them.
func TestZephyr_CloseSeveralFromTheCallback(t *testing.T) {
	const n = 4
	l := newLoop(t, Config{})
	calls := make(chan bool, n)
	s := l.Define("a", func(ev *Event) {
		calls <- true
		if err := ev.Service.Close(); err != nil {
			t.Error(err)
		}
	}, n)
	require.NoError(t, l.Start())
	var all, peers []int32
	for range n {
		ours, peer := socketpair(t)
		send(t, peer, "x")
		all, peers = append(all, ours), append(peers, peer)
	}
	require.NoError(t, s.Register(in(all...), nil))
	await(t, calls)
	barrier(t, l)
	none(t, calls)
	closed(all...)
	for _, peer := range peers {
		_, err := unix.Write(int(peer), []byte("x"))
		require.ErrorIs(t, err, unix.ECONNREFUSED)
	}
}

func TestZephyr_EventMaskChange(t *testing.T) {
	l := newLoop(t, Config{})
	calls := make(chan int16, 100)
	s := l.Define("a", func(ev *Event) {
		calls <- ev.Revents
		if err := ev.Service.Add(int(ev.Fd), 0, nil); err != nil { // once each
			t.Error(err)
		}
	}, 1)
	require.NoError(t, l.Start())
	ours, peer := socketpair(t)
	send(t, peer, "x")
	for _, events := range []int16{unix.POLLIN, unix.POLLOUT, unix.POLLIN | unix.POLLOUT, unix.POLLIN} {
		require.NoError(t, s.Register([]unix.PollFd{{Fd: ours, Events: events}}, nil))
		require.Equal(t, events, await(t, calls))
		barrier(t, l)
		none(t, calls)
	}
}

func TestZephyr_Unregister(t *testing.T) {
	l := newLoop(t, Config{})
	handler, calls := record()
	s := l.Define("a", handler, 1)
	require.NoError(t, l.Start())
	ours, peer := socketpair(t)
	for range 3 {
		require.NoError(t, s.Register(in(ours), nil))
		send(t, peer, "x")
		require.Equal(t, "x", await(t, calls).text)
		require.NoError(t, s.Unregister())
		require.NoError(t, s.Unregister(), "twice is no error")
		send(t, peer, "y")
		barrier(t, l)
		none(t, calls)
		require.Equal(t, "y", read(ours))
	}
}

// The handler closes its socket and registers another that has the same number.
func TestZephyr_FdReplacement_71189(t *testing.T) {
	l := newLoop(t, Config{})
	type call struct{ data, text any }
	calls, peers := make(chan call, 10), make(chan int32, 1)
	s := l.Define("a", func(ev *Event) {
		calls <- call{ev.UserData, read(ev.Fd)}
		if ev.UserData != "old" {
			return
		}
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Error(err)
		}
		if err := unix.Dup3(fds[0], int(ev.Fd), unix.O_CLOEXEC); err != nil { // closes the old one
			t.Error(err)
		}
		_ = unix.Close(fds[0])
		if err := ev.Service.Register(in(ev.Fd), "new"); err != nil {
			t.Error(err)
		}
		peers <- int32(fds[1])
	}, 1)
	require.NoError(t, l.Start())
	ours, peer := socketpair(t)
	send(t, peer, "1")
	send(t, peer, "2 is lost with the socket")
	require.NoError(t, s.Register(in(ours), "old"))
	require.Equal(t, call{"old", "1"}, await(t, calls))
	now := await(t, peers)
	defer unix.Close(int(now))
	send(t, now, "3")
	require.Equal(t, call{"new", "3"}, await(t, calls))
	barrier(t, l)
	none(t, calls)
}
