package socketservice

import (
	"fmt"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// The comment of a test names the Zephyr issue that the test comes from, if there is one.

func nothing(*Event) {}

func TestDefineGivesFreeSlots(t *testing.T) {
	l := newLoop(t, Config{})
	s := l.Define("a", nothing, 3)
	require.Equal(t, 3, s.Slots())
	require.Empty(t, s.Sockets())
	for i := range s.count {
		require.Negative(t, l.slots.at(s.base+uint32(i)).fd)
	}
}

func TestDefinePanicsWithTheName(t *testing.T) {
	l := newLoop(t, Config{})
	require.PanicsWithValue(t, `socketservice: define "a": count of 0 is not positive`, func() { l.Define("a", nothing, 0) })
	require.PanicsWithValue(t, `socketservice: define "a": count of -1 is not positive`, func() { l.Define("a", nothing, -1) })
	require.PanicsWithValue(t, `socketservice: define "b": handler is nil`, func() { Define("b", nil, 1) })
	require.Zero(t, l.defined)
}

func TestTwoServicesOfOneNameDifferInOwner(t *testing.T) {
	l := newLoop(t, Config{})
	a := l.Define("a", nothing, 1)
	b := l.Define("a", nothing, 1)
	require.Regexp(t, `^socketservice/conformance_test\.go:\d+$`, a.Owner())
	require.NotEqual(t, a.Owner(), b.Owner())
	require.Equal(t, a.Name(), b.Name())
	var all []*Service
	for s := range l.All() {
		all = append(all, s)
		l.Define("defined during the iteration", nothing, 1)
	}
	require.Equal(t, []*Service{a, b}, all)
}

func TestServicesOfOneLineHaveTheirOwnNamesAndHandlers(t *testing.T) {
	l := newLoop(t, Config{})
	var called []int
	var all []*Service
	for i, name := range []string{"a", "a", "b", "b"} {
		all = append(all, l.Define(name, func(*Event) { called = append(called, i) }, 1))
	}
	for _, s := range all {
		s.handler(nil)
	}
	require.Equal(t, []int{0, 1, 2, 3}, called)
	require.Equal(t, []string{"a", "a", "b", "b"},
		[]string{all[0].Name(), all[1].Name(), all[2].Name(), all[3].Name()})
}

func TestStartWithoutServicesFails(t *testing.T) {
	l := newLoop(t, Config{})
	err := l.Start()
	require.ErrorIs(t, err, unix.ENOENT)
	require.EqualError(t, err, "start socket service loop: no service is defined: no such file or directory")
}

// Zephyr's issue 69233.
func TestStartNamesASufficientPollMax(t *testing.T) {
	define := func(l *Loop) { l.Define("a", nothing, 3); l.Define("b", nothing, 4) }
	l := newLoop(t, Config{PollMax: 7})
	define(l)
	err := l.Start()
	require.ErrorIs(t, err, unix.ENOMEM)
	require.ErrorContains(t, err, "PollMax of 7 is too small for the slots of 2 services, at least 8 needed")
	l = newLoop(t, Config{PollMax: 8})
	define(l)
	require.NoError(t, l.Start())
}

func TestASecondStartFails(t *testing.T) {
	l := newLoop(t, Config{})
	l.Define("a", nothing, 1)
	require.NoError(t, l.Start())
	require.ErrorIs(t, l.Start(), unix.EALREADY)
	require.NoError(t, l.Stop())
	require.ErrorIs(t, l.Start(), unix.EIO)
}

// Zephyr's issue 73523.
func TestRegisterBeforeStartWaitsForIt(t *testing.T) {
	l := newLoop(t, Config{})
	handler, calls := record()
	s := l.Define("a", handler, 1)
	ours, peer := socketpair(t)
	send(t, peer, "early")
	result := make(chan error)
	go func() { result <- s.Register(in(ours), "data") }()
	none(t, result)
	require.NoError(t, l.Start())
	require.NoError(t, await(t, result))
	require.Equal(t, "early", await(t, calls).text)
}

// Zephyr's issue 73523.
func TestRegisterReturnsEIOWhenTheStartFails(t *testing.T) {
	l := newLoop(t, Config{PollMax: 1})
	s := l.Define("a", nothing, 1)
	ours, _ := socketpair(t)
	result := make(chan error)
	go func() { result <- s.Register(in(ours), nil) }()
	require.Error(t, l.Start())
	err := await(t, result)
	require.ErrorIs(t, err, unix.EIO)
	require.ErrorContains(t, err, "register socket service a: loop failed to start (")
	require.ErrorContains(t, err, "at least 2 needed")
	require.ErrorIs(t, s.Register(in(ours), nil), unix.EIO, "and so does every later call")
	require.ErrorIs(t, s.Register(nil, nil), unix.EIO)
	require.ErrorIs(t, s.Unregister(), unix.EIO)
	require.ErrorIs(t, l.Start(), unix.EIO)
}

func TestRegisterReturnsEIOWhenTheLoopIsStoppedInstead(t *testing.T) {
	l := newLoop(t, Config{})
	s := l.Define("a", nothing, 1)
	result := make(chan error)
	go func() { result <- s.Register(in(0), nil) }()
	require.NoError(t, s.Unregister(), "before the start there is nothing to unregister")
	require.NoError(t, l.Stop())
	require.ErrorIs(t, await(t, result), unix.EIO)
}

func TestServiceOfNoLoopIsENOENT(t *testing.T) {
	var s Service
	require.ErrorIs(t, s.Register(in(0), nil), unix.ENOENT)
	require.ErrorIs(t, (*Service)(nil).Unregister(), unix.ENOENT)
	require.Empty(t, s.Sockets())
	require.Zero(t, s.Stats())
}

func TestMoreSocketsThanSlotsIsENOMEM(t *testing.T) {
	l := newLoop(t, Config{})
	s := l.Define("a", nothing, 2)
	require.NoError(t, l.Start())
	ours, _ := socketpair(t)
	err := s.Register(in(ours, -1, -1), nil)
	require.ErrorIs(t, err, unix.ENOMEM)
	require.EqualError(t, err, "register socket service a: 3 sockets for 2 slots: cannot allocate memory")
	var e *Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, "register", e.Op)
	require.Equal(t, "a", e.Service)
}

func TestEmptySetClears(t *testing.T) {
	for name, set := range map[string][]unix.PollFd{"nil": nil, "empty": {}, "skipped": in(-1, -1)} {
		t.Run(name, func(t *testing.T) {
			l := newLoop(t, Config{})
			handler, calls := record()
			s := l.Define("a", handler, 2)
			require.NoError(t, l.Start())
			ours, peer := socketpair(t)
			require.NoError(t, s.Register(in(ours), nil))
			require.Len(t, s.Sockets(), 1)
			require.NoError(t, s.Register(set, nil))
			require.Empty(t, s.Sockets())
			send(t, peer, "x")
			barrier(t, l)
			none(t, calls)
		})
	}
}

func TestRefusedCallLosesNothing(t *testing.T) {
	l := newLoop(t, Config{})
	handler, calls := record()
	s := l.Define("a", handler, 3)
	require.NoError(t, l.Start())
	a, peerA := socketpair(t)
	b, peerB := socketpair(t)
	require.NoError(t, s.Register(in(a), "old"))

	file, err := os.CreateTemp(t.TempDir(), "")
	require.NoError(t, err)
	defer file.Close()
	regular := int32(file.Fd())
	for name, c := range map[string]struct {
		set  []unix.PollFd
		want error
	}{
		"too many":                  {in(b, b, b, b), unix.ENOMEM},
		"not pollable":              {in(regular), unix.EPERM},
		"not pollable, half-way":    {in(b, a, regular), unix.EPERM},
		"not pollable, other event": {[]unix.PollFd{{Fd: a, Events: unix.POLLOUT}, {Fd: b}, {Fd: regular}}, unix.EPERM},
	} {
		err := s.Register(c.set, "new")
		require.ErrorIs(t, err, c.want, name)
		require.Equal(t, in(a), polled(s), name)
		send(t, peerB, "not polled")
		send(t, peerA, name)
		got := await(t, calls)
		require.Equal(t, name, got.text)
		require.Equal(t, "old", got.UserData)
		require.EqualValues(t, unix.POLLIN, got.Revents)
		barrier(t, l)
		none(t, calls)
	}
	require.ErrorContains(t, s.Register(in(regular), nil), fmt.Sprintf("register socket service a: socket %d: operation not permitted", regular))
}

func TestRegisterReplacesFdsEventsAndUserData(t *testing.T) {
	l := newLoop(t, Config{})
	handler, calls := record()
	s := l.Define("a", handler, 2)
	require.NoError(t, l.Start())
	a, peerA := socketpair(t)
	b, peerB := socketpair(t)

	require.NoError(t, s.Register(in(a, b), 1))
	send(t, peerA, "a1")
	got := await(t, calls)
	require.Equal(t, "a1", got.text)
	require.Equal(t, unix.PollFd{Fd: a, Events: unix.POLLIN, Revents: unix.POLLIN}, got.PollFd)
	require.Equal(t, 1, got.UserData)
	require.Same(t, s, got.Service)

	require.NoError(t, s.Register(in(b), 2))
	send(t, peerA, "a2")
	send(t, peerB, "b2")
	got = await(t, calls)
	require.Equal(t, "b2", got.text)
	require.Equal(t, 2, got.UserData)
	barrier(t, l)
	none(t, calls)

	require.NoError(t, s.Register(in(a), 3))
	require.Equal(t, "a2", await(t, calls).text, "what came meanwhile is not lost")
}

func TestEventMaskChange(t *testing.T) {
	l := newLoop(t, Config{})
	calls := make(chan Event, 100)
	s := l.Define("a", func(ev *Event) {
		calls <- *ev
		if ev.Revents&unix.POLLOUT != 0 {
			_ = ev.Service.Register(in(ev.Fd), nil)
		} else {
			read(ev.Fd)
		}
	}, 1)
	require.NoError(t, l.Start())
	a, peer := socketpair(t)
	require.NoError(t, s.Register([]unix.PollFd{{Fd: a}}, nil))
	send(t, peer, "x")
	barrier(t, l)
	none(t, calls)
	require.NoError(t, s.Register([]unix.PollFd{{Fd: a, Events: unix.POLLOUT}}, nil))
	require.EqualValues(t, unix.POLLOUT, await(t, calls).Revents)
	require.EqualValues(t, unix.POLLIN, await(t, calls).Revents)
	barrier(t, l)
	none(t, calls)
}

func TestNegativeFdsAreSkipped(t *testing.T) {
	l := newLoop(t, Config{})
	handler, calls := record()
	s := l.Define("a", handler, 3)
	require.NoError(t, l.Start())
	ours, peer := socketpair(t)
	require.NoError(t, s.Register(in(-1, ours, -7), nil))
	require.Equal(t, in(ours), polled(s))
	send(t, peer, "x")
	require.Equal(t, "x", await(t, calls).text)
}

func TestTheFirstOfDuplicateSlotsGetsTheEvent(t *testing.T) {
	l := newLoop(t, Config{})
	handler, calls := record()
	s := l.Define("a", handler, 3)
	require.NoError(t, l.Start())
	ours, peer := socketpair(t)
	require.NoError(t, s.Register(in(ours, ours, ours), "d"))
	require.Len(t, s.Sockets(), 3)
	send(t, peer, "once")
	require.Equal(t, "once", await(t, calls).text)
	barrier(t, l)
	none(t, calls)

	set := in(ours, ours)
	set[1].Events = unix.POLLOUT
	writes := l.Define("b", func(ev *Event) { handler(ev); _ = ev.Service.Unregister() }, 2)
	require.NoError(t, s.Unregister())
	require.NoError(t, writes.Register(set, "d"))
	got := await(t, calls)
	require.EqualValues(t, unix.POLLOUT, got.Revents)
	require.EqualValues(t, unix.POLLIN|unix.POLLOUT, got.Events)
	barrier(t, l)
	none(t, calls)
	require.Empty(t, writes.Sockets())
	require.False(t, l.lookup(ours).active)
}

func TestOneSocketInSeveralServicesReachesEach(t *testing.T) {
	l := newLoop(t, Config{})
	calls := make(chan string, 100)
	note := func(ev *Event) { calls <- fmt.Sprintf("%s%v%d", ev.Service.Name(), ev.UserData, ev.Revents) }
	reads := l.Define("r", func(ev *Event) { note(ev); read(ev.Fd) }, 1)
	peeks := l.Define("p", note, 1)
	writes := l.Define("w", func(ev *Event) { note(ev); _ = ev.Service.Unregister() }, 1)
	require.NoError(t, l.Start())
	ours, peer := socketpair(t)
	require.NoError(t, peeks.Register(in(ours), 1))
	require.NoError(t, reads.Register(in(ours), 2))
	send(t, peer, "x")
	require.Equal(t, "p11", await(t, calls))
	require.Equal(t, "r21", await(t, calls))
	require.NoError(t, writes.Register([]unix.PollFd{{Fd: ours, Events: unix.POLLOUT}}, 3))
	require.Equal(t, "w34", await(t, calls))
	barrier(t, l)
	none(t, calls)
	require.NoError(t, peeks.Unregister())
	send(t, peer, "y")
	require.Equal(t, "r21", await(t, calls))
	barrier(t, l)
	none(t, calls)
}
