package socketservice

import (
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// after lists what can happen to a descriptor that was closed while a service had it.
var after = map[string]func(t *testing.T, fd int32) (dup int){
	"closed": func(t *testing.T, fd int32) int {
		closeEarly(t, fd)
		return -1
	},
	"closed, a duplicate open": func(t *testing.T, fd int32) int {
		dup := dupOf(t, fd)
		closeEarly(t, fd)
		return dup
	},
	"number reused by a socket": func(t *testing.T, fd int32) int {
		other, _ := socketpair(t)
		require.NoError(t, unix.Dup3(int(other), int(fd), unix.O_CLOEXEC))
		return -1
	},
	"number reused by a socket, a duplicate open": func(t *testing.T, fd int32) int {
		dup := dupOf(t, fd)
		other, _ := socketpair(t)
		require.NoError(t, unix.Dup3(int(other), int(fd), unix.O_CLOEXEC))
		return dup
	},
	"number reused by a regular file": func(t *testing.T, fd int32) int {
		file, err := os.CreateTemp(t.TempDir(), "")
		require.NoError(t, err)
		defer file.Close()
		require.NoError(t, unix.Dup3(int(file.Fd()), int(fd), unix.O_CLOEXEC))
		return -1
	},
}

func dupOf(t *testing.T, fd int32) int {
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 500)
	require.NoError(t, err)
	t.Cleanup(func() { _ = unix.Close(dup) })
	return dup
}

// told requires one POLLNVAL if the number is not open, and no call if the number belongs to
// another file.
func told(t *testing.T, l *Loop, fd int32, calls chan seen) {
	t.Helper()
	if !isOpen(int(fd)) {
		got := await(t, calls)
		require.Equal(t, unix.PollFd{Fd: fd, Events: unix.POLLIN, Revents: unix.POLLNVAL}, got.PollFd)
		require.Equal(t, "data", got.UserData)
	}
	calm(t, l)
	none(t, calls)
}

func TestClosedSocketIsNotListedAndFreesItsSlot(t *testing.T) {
	for name, becomes := range after {
		t.Run(name, func(t *testing.T) {
			l := newLoop(t, Config{})
			handler, calls := record()
			s := l.Define("a", handler, 2)
			require.NoError(t, l.Start())
			ours, _ := socketpair(t)
			kept, peer := socketpair(t)
			require.NoError(t, s.Register(in(ours, kept), "data"))
			becomes(t, ours)
			require.Equal(t, in(kept), polled(s))
			told(t, l, ours, calls)
			send(t, peer, "x")
			require.Equal(t, "x", await(t, calls).text)
		})
	}
}

func TestAddTakesTheSlotOfAClosedSocket(t *testing.T) {
	for name, becomes := range after {
		t.Run(name, func(t *testing.T) {
			l := newLoop(t, Config{})
			handler, calls := record()
			s := l.Define("a", handler, 1)
			require.NoError(t, l.Start())
			ours, _ := socketpair(t)
			require.NoError(t, s.Add(int(ours), unix.POLLIN, "data"))
			becomes(t, ours)
			next, peer := socketpair(t)
			if next == ours { // the lowest free number
				number, err := unix.FcntlInt(uintptr(next), unix.F_DUPFD_CLOEXEC, 600)
				require.NoError(t, err)
				defer unix.Close(number)
				closeEarly(t, next)
				next = int32(number)
			}
			require.NoError(t, s.Add(int(next), unix.POLLIN, "next"))
			told(t, l, ours, calls)
			send(t, peer, "x")
			got := await(t, calls)
			require.Equal(t, "x", got.text)
			require.Equal(t, "next", got.UserData)
		})
	}
}

// No call makes the loop look.
//
// Zephyr's issue 82652.
func TestTheLoopFindsAClosedSocketItself(t *testing.T) {
	for name, becomes := range after {
		t.Run(name, func(t *testing.T) {
			l := newLoop(t, Config{})
			handler, calls := record()
			s := l.Define("a", handler, 1)
			require.NoError(t, l.Start())
			ours, _ := socketpair(t)
			require.NoError(t, s.Register(in(ours), "data"))
			becomes(t, ours)
			lost := func() bool { l.mu.Lock(); defer l.mu.Unlock(); return len(l.occupied(s)) == 0 }
			require.Eventually(t, lost, patience, 1e6)
			told(t, l, ours, calls)
		})
	}
}

// The old socket's peer continues to send. Its bytes must not reach the new socket.
func TestTheNextFileUnderADescriptorIsNotPolled(t *testing.T) {
	l := newLoop(t, Config{})
	handler, calls := record()
	s := l.Define("a", handler, 1)
	require.NoError(t, l.Start())
	ours, peer := socketpair(t)
	require.NoError(t, s.Register(in(ours), "data"))
	dupOf(t, ours)
	next, peerNext := socketpair(t)
	require.NoError(t, unix.Dup3(int(next), int(ours), unix.O_CLOEXEC))
	send(t, peerNext, "to the number's next owner")
	require.Empty(t, s.Sockets())
	send(t, peer, "to the old socket")
	calm(t, l)
	none(t, calls)
	require.Equal(t, "to the number's next owner", read(ours))
}

func TestEveryClosedSocketOfManyIsFound(t *testing.T) {
	const n = 2*sweepBatch + 7 // more than the loop looks at at once
	l := newLoop(t, Config{})
	handler, calls := record()
	s := l.Define("a", handler, n)
	require.NoError(t, l.Start())
	ours, _ := socketpair(t)
	want := map[int]bool{}
	for range n {
		fd := dupOf(t, ours)
		require.NoError(t, s.Add(fd, unix.POLLIN, fd))
		want[fd] = true
	}
	for fd := range want {
		require.NoError(t, unix.Close(fd))
	}
	for len(want) > 0 {
		got := await(t, calls)
		require.EqualValues(t, unix.POLLNVAL, got.Revents)
		require.True(t, want[got.UserData.(int)], "told twice")
		delete(want, got.UserData.(int))
	}
}

// The check for closed sockets must not report a hang-up again.
//
// Zephyr's issue 111912.
func TestTheCheckForLostSocketsReportsNoHangUpAgain(t *testing.T) {
	l := newLoop(t, Config{})
	calls := make(chan Event, 1000)
	s := l.Define("a", func(ev *Event) { calls <- *ev }, 1)
	require.NoError(t, l.Start())
	ours, peer := pair(t, unix.SOCK_STREAM)
	require.NoError(t, s.Register([]unix.PollFd{{Fd: ours, Events: unix.POLLPRI}}, nil))
	closeEarly(t, peer)
	require.EqualValues(t, unix.POLLHUP, await(t, calls).Revents)
	calm(t, l)
	before := len(calls)
	for range 100 {
		require.Len(t, s.Sockets(), 1)
	}
	calm(t, l)
	require.Len(t, calls, before)
}

// One of two services closes their common socket. Its number goes to a new socket, which is
// registered before the other service gets its POLLNVAL.
//
// Zephyr's issue 108180.
func TestTheOtherServiceGetsPOLLNVALEvenIfTheDescriptorIsReused(t *testing.T) {
	l := newLoop(t, Config{})
	handler, calls := record()
	a, b := l.Define("a", handler, 1), l.Define("b", handler, 1)
	shared, _ := socketpair(t)
	next, peerNext := socketpair(t)
	steps := []func(){
		func() { assert.NoError(t, a.Close()) }, // closes when the handler returns
		func() {
			assert.NoError(t, unix.Dup3(int(next), int(shared), unix.O_CLOEXEC))
			assert.NoError(t, a.Register(in(shared), "new"))
		},
	}
	step := l.Define("step", func(ev *Event) {
		read(ev.Fd)
		steps[0]()
		steps = steps[1:]
	}, 2)
	require.NoError(t, l.Start())
	require.NoError(t, a.Register(in(shared), "of a"))
	require.NoError(t, b.Register(in(shared), "of b"))
	one, peerOne := socketpair(t)
	two, peerTwo := socketpair(t)
	require.NoError(t, step.Register(in(one, two), nil))
	release := l.hold(t)
	send(t, peerOne, "x")
	send(t, peerTwo, "x") // both steps are of one round
	release()
	got := await(t, calls)
	require.Same(t, b, got.Service)
	require.Equal(t, "of b", got.UserData)
	require.EqualValues(t, unix.POLLNVAL, got.Revents)
	require.Empty(t, b.Sockets())
	send(t, peerNext, "x")
	got = await(t, calls)
	require.Equal(t, "new", got.UserData)
	calm(t, l)
	none(t, calls)
}

// A socket that two services have is ready for both in one round.
func TestAClosedSocketReachesTheOtherServiceAsPOLLNVALAlone(t *testing.T) {
	l := newLoop(t, Config{})
	handler, calls := record()
	a := l.Define("a", func(ev *Event) { assert.NoError(t, ev.Service.Close()) }, 1)
	b := l.Define("b", handler, 1)
	require.NoError(t, l.Start())
	shared, peer := socketpair(t)
	require.NoError(t, a.Register(in(shared), nil))
	require.NoError(t, b.Register(in(shared), nil))
	send(t, peer, "for both")
	require.EqualValues(t, unix.POLLNVAL, await(t, calls).Revents)
	closed(shared)
	calm(t, l)
	none(t, calls)
}
