package socketservice

import (
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// RegisterEach replaces a set at once, each socket has its user data, and RegisterEach takes
// what Sockets returns.
//
// Zephyr's issue 118000.
func TestRegisterEachGivesEachSocketItsUserData(t *testing.T) {
	l := newLoop(t, Config{})
	handler, calls := record()
	s := l.Define("a", handler, 3)
	require.NoError(t, l.Start())
	a, peerA := socketpair(t)
	b, peerB := socketpair(t)
	c, peerC := socketpair(t)
	set := []Socket{
		{unix.PollFd{Fd: a, Events: unix.POLLIN}, "of a"},
		{unix.PollFd{Fd: b, Events: unix.POLLIN}, "of b"},
	}
	require.NoError(t, s.RegisterEach(set))
	require.Equal(t, set, s.Sockets())
	reaches := func(peer int32, data any) {
		t.Helper()
		send(t, peer, "x")
		require.Equal(t, data, await(t, calls).UserData)
	}
	reaches(peerA, "of a")
	reaches(peerB, "of b")

	// One more, one other, one gone: the others keep theirs.
	set = append(s.Sockets()[1:], Socket{unix.PollFd{Fd: c, Events: unix.POLLIN}, 3}, Socket{PollFd: unix.PollFd{Fd: -1}, UserData: "skipped"})
	require.NoError(t, s.RegisterEach(set))
	require.Equal(t, set[:2], s.Sockets())
	reaches(peerB, "of b")
	reaches(peerC, 3)
	send(t, peerA, "x")
	barrier(t, l)
	none(t, calls)

	require.NoError(t, s.Register(in(a, b), "of both"))
	require.Equal(t, []Socket{{in(a)[0], "of both"}, {in(b)[0], "of both"}}, s.Sockets())
	require.Equal(t, "x", await(t, calls).text)
	require.NoError(t, s.Add(int(b), unix.POLLIN, "of b alone"))
	require.Equal(t, []Socket{{in(a)[0], "of both"}, {in(b)[0], "of b alone"}}, s.Sockets())
	require.NoError(t, s.RegisterEach(nil))
	require.Empty(t, s.Sockets())
}

func TestRegisterEachThatIsRefusedLosesNoUserData(t *testing.T) {
	l := newLoop(t, Config{})
	handler, calls := record()
	s := l.Define("a", handler, 2)
	require.NoError(t, l.Start())
	a, peer := socketpair(t)
	set := []Socket{{in(a)[0], "old"}}
	require.NoError(t, s.RegisterEach(set))
	regular, err := unix.Open("/proc/self/exe", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	require.NoError(t, err)
	defer unix.Close(regular)
	err = s.RegisterEach([]Socket{{in(a)[0], "new"}, {in(int32(regular))[0], "refused"}})
	require.ErrorIs(t, err, unix.EPERM)
	require.ErrorIs(t, s.RegisterEach(make([]Socket, 3)), unix.ENOMEM)
	require.Equal(t, set, s.Sockets())
	send(t, peer, "x")
	require.Equal(t, "old", await(t, calls).UserData)
}

// The POLLNVAL of a socket that is not open carries the socket's user data.
func TestRegisterEachReportsAClosedSocketWithItsUserData(t *testing.T) {
	l := newLoop(t, Config{})
	handler, calls := record()
	s := l.Define("a", handler, 2)
	require.NoError(t, l.Start())
	const one, two = 1 << 20, 1<<20 + 1
	require.NoError(t, s.RegisterEach([]Socket{{in(one)[0], "one"}, {in(two)[0], "two"}}))
	told := map[int32]any{}
	for range 2 {
		got := await(t, calls)
		require.EqualValues(t, unix.POLLNVAL, got.Revents)
		told[got.Fd] = got.UserData
	}
	require.Equal(t, map[int32]any{one: "one", two: "two"}, told)
	require.Empty(t, s.Sockets())
}
