package socketservice

import (
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// Add, Remove and Close.

// Zephyr's issue 96109.
func TestAddTakesOneSlotAndLeavesTheOthers(t *testing.T) {
	l := newLoop(t, Config{})
	handler, calls := record()
	s := l.Define("a", handler, 2)
	a, peerA := socketpair(t)
	b, peerB := socketpair(t)
	c, _ := socketpair(t)
	result := make(chan error)
	go func() { result <- s.Add(int(a), unix.POLLIN, "of a") }() // waits for the start
	require.NoError(t, l.Start())
	require.NoError(t, await(t, result))
	require.NoError(t, s.Add(int(b), unix.POLLIN, "of b"))
	for peer, want := range map[int32]string{peerA: "of a", peerB: "of b"} {
		send(t, peer, "x")
		require.Equal(t, want, await(t, calls).UserData)
	}

	err := s.Add(int(c), unix.POLLIN, nil)
	require.ErrorIs(t, err, unix.ENOMEM)
	require.EqualError(t, err, fmt.Sprintf("add socket service a: socket %d: all 2 slots are taken: cannot allocate memory", c))
	require.NoError(t, s.Remove(int(a)))
	require.NoError(t, s.Add(int(c), unix.POLLIN, nil), "the slot that was removed")
	require.ErrorIs(t, s.Remove(int(a)), unix.ENOENT)
	require.NoError(t, s.Remove(int(c)))
	require.ErrorIs(t, s.Add(-1, unix.POLLIN, nil), unix.EBADF)
	require.ErrorIs(t, s.Add(1<<20, unix.POLLIN, nil), unix.EBADF)
	require.Equal(t, in(b), polled(s), "refused calls have changed nothing")
}

// Zephyr's issue 114405.
func TestAddChangesASocketThatTheServiceHas(t *testing.T) {
	l := newLoop(t, Config{})
	calls := make(chan Event, 100)
	s := l.Define("a", func(ev *Event) {
		calls <- *ev
		if ev.Revents&unix.POLLOUT != 0 { // the answer is sent: wait for the next question
			_ = ev.Service.Add(int(ev.Fd), unix.POLLIN, "reads")
			return
		}
		read(ev.Fd)
		_ = ev.Service.Add(int(ev.Fd), unix.POLLOUT, "writes")
	}, 1)
	require.NoError(t, l.Start())
	ours, peer := socketpair(t)
	require.NoError(t, s.Add(int(ours), unix.POLLIN, "reads"))
	for range 10 {
		send(t, peer, "x")
		got := await(t, calls)
		require.Equal(t, "reads", got.UserData)
		require.EqualValues(t, unix.POLLIN, got.Revents)
		got = await(t, calls)
		require.Equal(t, "writes", got.UserData)
		require.EqualValues(t, unix.POLLOUT, got.Revents)
	}
	barrier(t, l)
	none(t, calls)
}

func TestFreeSlotsAreUsedAgainInAnyOrder(t *testing.T) {
	const slots = 300 // more than one chunk of the table
	l := newLoop(t, Config{})
	s := l.Define("a", nothing, slots)
	require.NoError(t, l.Start())
	ours, _ := socketpair(t)
	fds := make([]int, slots)
	for i := range fds {
		fd, err := unix.FcntlInt(uintptr(ours), unix.F_DUPFD_CLOEXEC, 0)
		require.NoError(t, err)
		defer unix.Close(fd)
		fds[i] = fd
	}
	for round := range 3 {
		for _, fd := range fds {
			require.NoError(t, s.Add(fd, unix.POLLIN, nil))
		}
		require.Len(t, s.Sockets(), slots)
		require.ErrorIs(t, s.Add(int(ours), unix.POLLIN, nil), unix.ENOMEM)
		for i := range fds {
			require.NoError(t, s.Remove(fds[(i*7+round)%slots]))
		}
		require.Empty(t, s.Sockets())
	}
	require.NoError(t, s.Register(in(int32(fds[0]), -1, int32(fds[1])), nil))
	require.NoError(t, s.Add(fds[2], unix.POLLIN, nil))
	require.Len(t, s.Sockets(), 3)
}

// Each socket has its number as user data and as its only message. All sockets use the same
// descriptor numbers, and half of them are closed while they are ready. With -short, for
// emulated processors, there are a thousand.
//
// Zephyr's issue 115800.
func TestTenThousandReusedDescriptorsGetOnlyTheirOwnEvents(t *testing.T) {
	reuses := uint32(10000)
	if testing.Short() {
		reuses = 1000
	}
	l := newLoop(t, Config{})
	wrong, served := make(chan string, 1), make(chan uint32, 1)
	var buf [4]byte
	s := l.Define("a", func(ev *Event) {
		n, err := unix.Read(int(ev.Fd), buf[:])
		got := binary.NativeEndian.Uint32(buf[:])
		if n != 4 || got != ev.UserData || ev.Revents != unix.POLLIN {
			select {
			case wrong <- fmt.Sprintf("%v: read %d (%v), revents %#x", ev.UserData, got, err, ev.Revents):
			default:
			}
		}
		if got%2 == 0 {
			served <- got
		}
	}, 4)
	require.NoError(t, l.Start())
	number, _ := socketpair(t) // its number is used again and again
	closed(number)
	for i := range reuses {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		require.NoError(t, err)
		if fds[0] != int(number) {
			require.NoError(t, unix.Dup3(fds[0], int(number), unix.O_CLOEXEC))
			require.NoError(t, unix.Close(fds[0]))
			fds[0] = int(number)
		}
		var message [4]byte
		binary.NativeEndian.PutUint32(message[:], i)
		if i%4 < 2 { // ready before it is polled
			_, err = unix.Write(fds[1], message[:])
			require.NoError(t, err)
		}
		require.NoError(t, s.Add(fds[0], unix.POLLIN, i))
		if i%4 >= 2 {
			_, err = unix.Write(fds[1], message[:])
			require.NoError(t, err)
		}
		if i%2 == 0 {
			require.Equal(t, i, await(t, served))
		}
		require.NoError(t, s.Remove(fds[0]))
		_ = unix.Close(fds[0])
		_ = unix.Close(fds[1])
	}
	none(t, wrong)
}

// The calls that wait for a handler, and what must hold when they return.
//
// Zephyr's issue 110857.
func TestRemoveAndCloseWaitForTheHandlerThatRuns(t *testing.T) {
	for name, op := range map[string]func(*Service, int32) error{
		"remove": func(s *Service, fd int32) error { return s.Remove(int(fd)) },
		"close":  func(s *Service, fd int32) error { return s.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			l := newLoop(t, Config{})
			entered, proceed := make(chan bool), make(chan bool)
			s := l.Define("a", func(ev *Event) {
				entered <- true
				<-proceed
				if !isOpen(int(ev.Fd)) {
					t.Error("closed while its handler runs")
				}
				_ = ev.Service.Add(int(ev.Fd), unix.POLLIN, "a handler that is waited for cannot undo it")
			}, 1)
			require.NoError(t, l.Start())
			ours, peer := socketpair(t)
			require.NoError(t, s.Register(in(ours), nil))
			send(t, peer, "never read, so the socket stays ready")
			await(t, entered)
			result := make(chan error, 1)
			go func() { result <- op(s, ours) }()
			waiting := func() bool { l.mu.Lock(); defer l.mu.Unlock(); return l.quiescing[s] == 1 }
			require.Eventually(t, waiting, patience, 1e6)
			none(t, result)
			proceed <- true
			require.NoError(t, await(t, result))
			require.Empty(t, s.Sockets())
			require.Equal(t, name != "close", isOpen(int(ours)))
			if name == "close" {
				closed(ours)
			}
			barrier(t, l)
			none(t, entered)
		})
	}
}

// Zephyr's issue 108180.
func TestCloseClosesTheSockets(t *testing.T) {
	l := newLoop(t, Config{})
	handler, calls := record()
	s, other := l.Define("a", handler, 3), l.Define("b", handler, 2)
	require.NoError(t, s.Close(), "before the start there is nothing to close")
	require.NoError(t, l.Start())
	a, peerA := pair(t, unix.SOCK_STREAM)
	b, peerB := pair(t, unix.SOCK_STREAM)
	c, _ := socketpair(t)
	require.NoError(t, s.Register(in(a, b, b), nil))
	require.NoError(t, other.Register(in(c, b), "other"))
	require.NoError(t, s.Close())
	closed(a, b)
	for _, peer := range []int32{peerA, peerB} {
		require.Empty(t, read(peer), "the end")
	}
	got := await(t, calls)
	require.Equal(t, unix.PollFd{Fd: b, Events: unix.POLLIN, Revents: unix.POLLNVAL}, got.PollFd, "the other service hears of it")
	require.Same(t, other, got.Service)
	require.Equal(t, in(c), polled(other))
	require.NoError(t, s.Close())
	d, peerD := socketpair(t)
	require.NoError(t, s.Add(int(d), unix.POLLIN, nil), "the service stays")
	send(t, peerD, "x")
	require.Equal(t, "x", await(t, calls).text)
	calm(t, l)
	none(t, calls)
}

// A socket that was closed without being unregistered no longer belongs to the service,
// whether or not another file has its number.
//
// Zephyr's issue 71189.
func TestCloseDoesNotCloseTheNextFileUnderADescriptor(t *testing.T) {
	l := newLoop(t, Config{})
	s := l.Define("a", nothing, 1)
	require.NoError(t, l.Start())
	ours, _ := socketpair(t)
	require.NoError(t, s.Register(in(ours), nil))
	now, _ := socketpair(t)
	require.NoError(t, unix.Dup3(int(now), int(ours), unix.O_CLOEXEC))
	require.NoError(t, s.Close())
	require.True(t, isOpen(int(ours)))
	require.Empty(t, s.Sockets())
}

// After the first close, the number may belong to a socket that another goroutine has just
// opened.
//
// Zephyr's issue 108180.
func TestSocketOfTwoServicesIsClosedOnce(t *testing.T) {
	l := newLoop(t, Config{})
	numbers := make(chan int, 10)
	l.closeSocket = func(fd int) { numbers <- fd }
	shared, _ := socketpair(t)
	own, _ := socketpair(t)
	a, b := l.Define("a", nothing, 1), l.Define("b", nothing, 2)
	trigger := l.Define("trigger", func(ev *Event) {
		read(ev.Fd)
		assert.NoError(t, a.Close())
		assert.NoError(t, b.Close())
	}, 1)
	require.NoError(t, l.Start())
	require.NoError(t, a.Register(in(shared), nil))
	require.NoError(t, b.Register(in(shared, own), nil))
	ours, peer := socketpair(t)
	require.NoError(t, trigger.Register(in(ours), nil))
	send(t, peer, "x")
	closed := []int32{int32(await(t, numbers)), int32(await(t, numbers))}
	require.ElementsMatch(t, []int32{shared, own}, closed)
	barrier(t, l)
	none(t, numbers)
}

func TestUserDataIsKeptOnlyWhileASocketHasIt(t *testing.T) {
	l := newLoop(t, Config{})
	s := l.Define("a", nothing, 2)
	require.NoError(t, l.Start())
	a, _ := socketpair(t)
	b, _ := socketpair(t)
	require.NoError(t, s.Register(in(a, b), nil))
	require.Empty(t, l.data.chunks, "no socket has user data")

	kept := func() (some []any) {
		for id := range l.slotsUsed {
			if data := l.userData(id); data != nil {
				some = append(some, data)
			}
		}
		return some
	}
	require.NoError(t, s.Register(in(a, b), "both"))
	require.Equal(t, []any{"both", "both"}, kept())
	require.NoError(t, s.Register(in(b), "one"))
	require.Equal(t, []any{"one"}, kept())
	require.NoError(t, s.Add(int(a), unix.POLLIN, "two"))
	require.ElementsMatch(t, []any{"one", "two"}, kept())
	require.NoError(t, s.Add(int(a), unix.POLLIN, nil))
	require.Equal(t, []any{"one"}, kept())
	require.NoError(t, s.Remove(int(b)))
	require.Empty(t, kept())
}
