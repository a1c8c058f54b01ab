package socketservice

import (
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// These are Zephyr's tests of this API, from tests/net/socket/service/src/main.c as of
// August 2026, under their own names. Each requires what Zephyr's test requires.

// polls is a poller that notes the events for which the loop polls.
type polls struct {
	poller
	mu     sync.Mutex
	asked  map[int][]uint32 // by descriptor, the events of each interest
	now    map[int]bool
	rounds []map[int]bool // what is polled when a round begins
}

func (p *polls) control(op int, fd int, ev *unix.EpollEvent) error {
	err := p.poller.control(op, fd, ev)
	p.mu.Lock()
	defer p.mu.Unlock()
	if err == nil && op != unix.EPOLL_CTL_DEL {
		p.asked[fd] = append(p.asked[fd], ev.Events)
		p.now[fd] = true
	} else if op == unix.EPOLL_CTL_DEL {
		delete(p.now, fd)
	}
	return err
}

func (p *polls) wait(events []unix.EpollEvent) (int, error) {
	p.mu.Lock()
	round := map[int]bool{}
	for fd := range p.now {
		round[fd] = true
	}
	p.rounds = append(p.rounds, round)
	p.mu.Unlock()
	return p.poller.wait(events)
}

// newZephyrLoop returns a loop and its poller.
func newZephyrLoop(t *testing.T) (*Loop, *polls) {
	l := newLoop(t, Config{})
	p := &polls{asked: map[int][]uint32{}, now: map[int]bool{}}
	l.newPoller = func() (_ poller, err error) {
		p.poller, err = newEpoll()
		return p, err
	}
	return l, p
}

// inet6 returns an unbound socket, as in Zephyr's tests.
func inet6(t *testing.T, kind int) (fd int32) {
	n, err := unix.Socket(unix.AF_INET6, kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	t.Cleanup(func() { shut(int32(n)) })
	return int32(n)
}

// bind binds a socket to an address of the loopback interface.
func bind(t *testing.T, fd int32) unix.Sockaddr {
	require.NoError(t, unix.Bind(int(fd), &unix.SockaddrInet6{Addr: [16]byte{15: 1}}))
	addr, err := unix.Getsockname(int(fd))
	require.NoError(t, err)
	return addr
}

// unread returns a bound UDP socket with a datagram that the test does not read, so that the
// socket stays readable.
func unread(t *testing.T) (fd int32) {
	fd = inet6(t, unix.SOCK_DGRAM)
	require.NoError(t, unix.Sendto(int(inet6(t, unix.SOCK_DGRAM)), []byte("test"), 0, bind(t, fd)))
	readable(t, fd)
	return fd
}

func readable(t *testing.T, fd int32) {
	t.Helper()
	for {
		n, err := unix.Poll(in(fd), int(patience.Milliseconds()))
		if err == unix.EINTR {
			continue
		}
		require.NoError(t, err)
		require.Equal(t, 1, n)
		return
	}
}

// closesSoon waits until the service has closed a descriptor.
func closesSoon(t *testing.T, fd int32) {
	t.Helper()
	require.Eventually(t, func() bool { return !isOpen(int(fd)) }, patience, 1e6)
	closed(fd)
}

func TestZephyr_service_sync(t *testing.T) {
	l := newLoop(t, Config{})
	// The handlers read nothing. A TCP socket that is neither connected nor listens is
	// hung up on Linux, so its handler is called before.
	handler := func(calls chan int32) Handler {
		return func(ev *Event) {
			if ev.Revents&unix.POLLIN != 0 {
				select {
				case calls <- ev.Fd:
				default:
				}
			}
		}
	}
	udpCalls, tcpCalls := make(chan int32, 1), make(chan int32, 1)
	udp := l.Define("udp_service_sync", handler(udpCalls), 2)
	small := l.Define("tcp_service_small_sync", handler(tcpCalls), 1)
	tcp := l.Define("tcp_service_sync", handler(tcpCalls), 2)
	require.NoError(t, l.Start())
	receive := func(fd int32) {
		t.Helper()
		require.Equal(t, "test", read(fd))
	}

	// Registered before they are bound.
	serverUDP, clientUDP := inet6(t, unix.SOCK_DGRAM), inet6(t, unix.SOCK_DGRAM)
	serverTCP, clientTCP := inet6(t, unix.SOCK_STREAM), inet6(t, unix.SOCK_STREAM)
	require.NoError(t, udp.Register(in(serverUDP, -1), nil))
	require.ErrorIs(t, small.Register(in(serverTCP, -1, -1), nil), unix.ENOMEM)
	require.NoError(t, tcp.Register(in(serverTCP, -1), nil))

	require.NoError(t, unix.Connect(int(clientUDP), bind(t, serverUDP)))
	send(t, clientUDP, "test")
	require.Equal(t, serverUDP, await(t, udpCalls))
	receive(serverUDP)

	addr := bind(t, serverTCP)
	require.NoError(t, unix.Listen(int(serverTCP), 0))
	if err := unix.Connect(int(clientTCP), addr); err != nil {
		require.Equal(t, unix.EINPROGRESS, err)
	}
	require.Equal(t, serverTCP, await(t, tcpCalls), "the listener has a client")
	send(t, clientTCP, "test")
	accepted, _, err := unix.Accept4(int(serverTCP), unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
	require.NoError(t, err)
	require.NoError(t, tcp.Register(in(serverTCP, int32(accepted)), nil))
	for await(t, tcpCalls) != int32(accepted) { // a call for the listener may have come before accept
	}
	receive(int32(accepted))

	require.NoError(t, tcp.Unregister())
	require.NoError(t, udp.Close())
	require.NoError(t, small.Unregister())
	require.NoError(t, unix.Close(accepted))
	closeEarly(t, clientTCP)
	closeEarly(t, serverTCP)
	closeEarly(t, clientUDP)
	require.Equal(t, unix.EBADF, unix.Close(int(serverUDP)), "the service has closed it")
	closed(serverUDP)
}

func TestZephyr_close_from_callback(t *testing.T) {
	l := newLoop(t, Config{})
	results := make(chan error, 100)
	s := l.Define("reconfig_close_service", func(ev *Event) { results <- ev.Service.Close() }, 1)
	require.NoError(t, l.Start())
	fd := unread(t)
	require.NoError(t, s.Register(in(fd), nil))
	require.NoError(t, await(t, results))
	closesSoon(t, fd)
	barrier(t, l)
	none(t, results) // not called again, although the socket stayed readable
}

func TestZephyr_close_multiple_from_callback(t *testing.T) {
	l := newLoop(t, Config{})
	results := make(chan error, 100)
	s := l.Define("reconfig_close_multi_service", func(ev *Event) { results <- ev.Service.Close() }, 2)
	require.NoError(t, l.Start())
	fds := []int32{unread(t), unread(t)} // both in one round
	require.NoError(t, s.Register(in(fds...), nil))
	require.NoError(t, await(t, results))
	for _, fd := range fds {
		closesSoon(t, fd)
	}
	barrier(t, l)
	none(t, results) // no handler is called for the second ready socket after the close
}

func TestZephyr_reconfigure_events_from_callback(t *testing.T) {
	l := newLoop(t, Config{})
	type call struct {
		revents int16
		err     error
	}
	calls := make(chan call, 100)
	first := true
	s := l.Define("reconfig_events_service", func(ev *Event) {
		c := call{revents: ev.Revents}
		if first {
			first = false // and the datagram stays unread: a stale POLLIN would show
			c.err = ev.Service.Register([]unix.PollFd{{Fd: ev.Fd, Events: unix.POLLOUT}}, nil)
		} else {
			c.err = ev.Service.Unregister() // otherwise it would stay writable
			read(ev.Fd)
		}
		calls <- c
	}, 1)
	require.NoError(t, l.Start())
	fd := unread(t)
	require.NoError(t, s.Register(in(fd), nil))
	require.Equal(t, call{unix.POLLIN, nil}, await(t, calls))
	require.Equal(t, call{unix.POLLOUT, nil}, await(t, calls))
	barrier(t, l)
	none(t, calls)
}

func TestZephyr_unregister_from_callback(t *testing.T) {
	l, polls := newZephyrLoop(t)
	results := make(chan error, 100)
	s := l.Define("reconfig_unregister_service", func(ev *Event) { results <- ev.Service.Unregister() }, 1)
	witness := l.Define("reconfig_witness_service", nothing, 1)
	require.NoError(t, l.Start())
	fd, peer := socketpair(t)
	witnessed, _ := socketpair(t)
	require.NoError(t, witness.Register(in(witnessed), nil))
	require.NoError(t, s.Register(in(fd), nil))
	barrier(t, l)
	polls.mu.Lock()
	asked, before := len(polls.asked[int(fd)]), len(polls.rounds)
	require.True(t, polls.rounds[before-1][int(fd)], "it was polled")
	polls.mu.Unlock()
	send(t, peer, "never read")
	require.NoError(t, await(t, results))
	barrier(t, l) // the round after the callback, and more
	polls.mu.Lock()
	require.Greater(t, len(polls.rounds), before)
	last := slices.IndexFunc(polls.rounds[before:], func(round map[int]bool) bool { return !round[int(fd)] })
	require.GreaterOrEqual(t, last, 0)
	for _, round := range polls.rounds[before+last:] {
		require.False(t, round[int(fd)], "polled again after it was unregistered")
		require.True(t, round[int(witnessed)])
	}
	require.Len(t, polls.asked[int(fd)], asked, "asked for again")
	polls.mu.Unlock()
	none(t, results)
	require.True(t, isOpen(int(fd)))
	closeEarly(t, fd) // it succeeds: the service has not closed it
	require.NoError(t, witness.Close())
	closesSoon(t, witnessed)
}

func TestZephyr_reconfigure_from_callback(t *testing.T) {
	l, polls := newZephyrLoop(t)
	type call struct {
		fd      int32
		revents int16
		err     error
	}
	calls := make(chan call, 100)
	replacement, _ := socketpair(t)
	fd, peer := socketpair(t)
	require.NotEqual(t, fd, replacement)
	s := l.Define("reconfig_replace_service", func(ev *Event) {
		c := call{fd: ev.Fd, revents: ev.Revents}
		if ev.Fd == fd {
			c.err = ev.Service.Register([]unix.PollFd{{Fd: replacement, Events: unix.POLLOUT}}, nil)
		} else {
			c.err = ev.Service.Close()
		}
		calls <- c
	}, 1)
	require.NoError(t, l.Start())
	require.NoError(t, s.Register(in(fd), nil))
	send(t, peer, "never read")
	require.Equal(t, call{fd, unix.POLLIN, nil}, await(t, calls))
	require.Equal(t, call{replacement, unix.POLLOUT, nil}, await(t, calls))
	closesSoon(t, replacement)
	polls.mu.Lock()
	require.Equal(t, []uint32{unix.EPOLLOUT}, slices.Compact(polls.asked[int(replacement)]), "never with stale events")
	polls.mu.Unlock()
	barrier(t, l) // its sockets may get the number
	none(t, calls)
	polls.mu.Lock()
	require.Equal(t, []uint32{unix.EPOLLIN}, polls.asked[int(fd)], "polled once, and not again after it was replaced")
	require.False(t, polls.now[int(fd)])
	polls.mu.Unlock()
	require.True(t, isOpen(int(fd)))
	closeEarly(t, fd) // it succeeds: only the replacement was closed
}

// A poll that fails does not end the service.
//
// Zephyr's issue 75364.
func TestZephyr_PollErrorRecovery(t *testing.T) {
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
