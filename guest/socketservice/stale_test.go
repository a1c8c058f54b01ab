package socketservice

import (
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// rounds returns how many rounds the loop has run.
func rounds(l *Loop) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return int(l.round)
}

// calm requires that the loop waits for events and does not spin.
func calm(t *testing.T, l *Loop) {
	t.Helper()
	barrier(t, l)
	before := rounds(l)
	for range 10 {
		barrier(t, l)
	}
	require.Less(t, rounds(l)-before, 100, "the loop spins")
}

// Zephyr's issue 86834.
func TestChangeTakesEffectInTheRoundThatRuns(t *testing.T) {
	const a, b = 1001, 1002 // of the fake
	for name, change := range map[string]func(other *Service) error{
		"unregister":          func(other *Service) error { return other.Unregister() },
		"clear":               func(other *Service) error { return other.Register(nil, nil) },
		"other socket":        func(other *Service) error { return other.Register(in(b+1), "new") },
		"the same registered": func(other *Service) error { return other.Register(in(b), "new") },
	} {
		t.Run(name, func(t *testing.T) {
			l, newest := newFakeLoop(t, Config{})
			calls := make(chan string, 10)
			var other *Service
			s := l.Define("a", func(ev *Event) {
				calls <- fmt.Sprintf("a%v", ev.UserData)
				if ev.UserData == 1 {
					if err := change(other); err != nil {
						t.Error(err)
					}
				}
			}, 1)
			other = l.Define("b", func(ev *Event) { calls <- fmt.Sprintf("b%v", ev.UserData) }, 1)
			require.NoError(t, l.Start())
			require.NoError(t, s.Register(in(a), 1))
			require.NoError(t, other.Register(in(b), "stale"))
			newest().fire(a, b)
			require.Equal(t, "a1", await(t, calls))
			require.NoError(t, s.Register(in(a), 2))
			newest().fire(a)
			require.Equal(t, "a2", await(t, calls), "and not b's event of the first round")
			require.Len(t, newest().polled(), 1+len(other.Sockets()))
		})
	}
}

// Both sockets are ready in one round. The handler that is called first closes the other's
// socket, and opens and registers a new one, which gets the same number. The old socket's
// event must not reach the new one.
//
// Zephyr's issue 71189.
func TestReusedFdNumberGetsNoStaleEvent(t *testing.T) {
	l := newLoop(t, Config{})
	type party struct {
		service *Service
		fd      int32
	}
	var parties [2]party
	calls := make(chan string, 10)
	fail := make(chan error, 10)
	entered, proceed := make(chan bool), make(chan bool)
	gate := l.Define("gate", func(ev *Event) { read(ev.Fd); entered <- true; <-proceed }, 1)
	for i := range parties {
		parties[i].service = l.Define("party", func(ev *Event) {
			read(ev.Fd)
			calls <- fmt.Sprint(ev.UserData)
			if ev.UserData == "new" {
				return
			}
			other := &parties[1-i]
			old := other.fd
			fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
			err2 := unix.Dup3(fds[0], int(old), unix.O_CLOEXEC) // closes the old one
			_ = unix.Close(fds[0])
			_ = unix.Close(fds[1]) // the new one is now ready only for output
			fail <- errors.Join(err, err2, other.service.Register(in(old), "new"))
		}, 1)
	}
	require.NoError(t, l.Start())
	g, peerGate := socketpair(t)
	require.NoError(t, gate.Register(in(g), nil))
	var ready []int32
	for i := range parties {
		ours, peer := socketpair(t)
		parties[i].fd = ours
		require.NoError(t, parties[i].service.Register(in(ours), "old"))
		ready = append(ready, peer)
	}
	send(t, peerGate, "x")
	await(t, entered)
	for _, peer := range ready {
		send(t, peer, "both ready")
	}
	proceed <- true
	require.Equal(t, "old", await(t, calls))
	require.NoError(t, await(t, fail))
	calm(t, l)
	none(t, calls)
}

func TestRegisterNoticesAReusedFdNumber(t *testing.T) {
	for _, duplicated := range []bool{false, true} {
		t.Run(fmt.Sprintf("duplicate=%v", duplicated), func(t *testing.T) {
			l := newLoop(t, Config{})
			handler, calls := record()
			former := l.Define("former", handler, 1)
			s := l.Define("a", handler, 1)
			require.NoError(t, l.Start())
			ours, peer := socketpair(t)
			require.NoError(t, former.Register(in(ours), "old"))
			if duplicated {
				dup, err := unix.FcntlInt(uintptr(ours), unix.F_DUPFD_CLOEXEC, 500)
				require.NoError(t, err)
				defer unix.Close(dup)
			}
			// The socket behind the number becomes another.
			now, peerNow := socketpair(t)
			require.NoError(t, unix.Dup3(int(now), int(ours), unix.O_CLOEXEC))
			require.NoError(t, s.Register(in(ours), "new"))
			require.Empty(t, former.Sockets(), "its socket is gone")
			if duplicated {
				send(t, peer, "to the duplicate")
			}
			send(t, peerNow, "hello")
			got := await(t, calls)
			require.Equal(t, "hello", got.text)
			require.Equal(t, "new", got.UserData)
			calm(t, l)
			none(t, calls)
		})
	}
}

// A change must not be lost while the loop is busy.
//
// Zephyr's issue 95719.
func TestChangeUnderAFloodTakesEffect(t *testing.T) {
	l := newLoop(t, Config{})
	var calls, late atomic.Int64
	var gone atomic.Bool
	called := make(chan bool, 1)
	flood := l.Define("flood", func(*Event) { calls.Add(1) }, 1) // never reads: always ready
	s := l.Define("a", func(*Event) {
		if gone.Load() {
			late.Add(1)
		}
		select {
		case called <- true:
		default:
		}
	}, 1)
	require.NoError(t, l.Start())
	f, peerF := socketpair(t)
	a, peerA := socketpair(t)
	send(t, peerF, "x")
	send(t, peerA, "x")
	require.NoError(t, flood.Register(in(f), nil))
	for range 100 {
		gone.Store(false)
		require.NoError(t, s.Register(in(a), nil))
		await(t, called)
		require.NoError(t, s.Unregister())
		gone.Store(true)
		select { // one more call may have come before
		case <-called:
		default:
		}
		flooded := calls.Load()
		require.Eventually(t, func() bool { return calls.Load() > flooded }, patience, 1e5)
	}
	require.Zero(t, late.Load(), "calls after Unregister had returned")
}

// Zephyr's issue 82652.
func TestSocketClosedWithoutUnregister(t *testing.T) {
	for _, duplicated := range []bool{false, true} {
		for _, unregister := range []bool{false, true} {
			t.Run(fmt.Sprintf("duplicate=%v,unregister=%v", duplicated, unregister), func(t *testing.T) {
				l := newLoop(t, Config{})
				handler, calls := record()
				s := l.Define("a", handler, 1)
				require.NoError(t, l.Start())
				ours, peer := socketpair(t)
				require.NoError(t, s.Register(in(ours), nil))
				if duplicated {
					dup, err := unix.FcntlInt(uintptr(ours), unix.F_DUPFD_CLOEXEC, 500)
					require.NoError(t, err)
					defer unix.Close(dup)
				}
				closeEarly(t, ours)
				if unregister {
					require.NoError(t, s.Unregister())
				}
				if duplicated {
					send(t, peer, "keeps the duplicate ready")
				}
				if duplicated && !unregister { // one surplus call before the report
					require.EqualValues(t, unix.POLLIN, await(t, calls).Revents)
				}
				if !unregister { // the report, of the next sweep at the latest
					require.EqualValues(t, unix.POLLNVAL, await(t, calls).Revents)
					require.Empty(t, s.Sockets())
				}
				calm(t, l)
				none(t, calls)
			})
		}
	}
}

// Zephyr's issue 75364.
func TestPollErrorRebuildsTheSet(t *testing.T) {
	log, lines := records()
	l, newest := newFakeLoop(t, Config{Logger: log})
	handler, calls := record()
	s := l.Define("a", handler, 2)
	require.NoError(t, l.Start())
	require.NoError(t, s.Register(in(1001, 1002), "data"))
	first := newest()
	first.fail(unix.EIO)
	require.Contains(t, await(t, lines), `msg="poll failed"`)
	require.NotSame(t, first, newest())
	require.Equal(t, map[int]uint32{1001: unix.EPOLLIN, 1002: unix.EPOLLIN}, newest().polled())
	newest().fire(1002)
	require.EqualValues(t, 1002, await(t, calls).Fd)
}

// Zephyr's issue 75474.
func TestAFailedReplacementOfThePollerIsTriedAgain(t *testing.T) {
	log, lines := records()
	l, newest := newFakeLoop(t, Config{Logger: log})
	handler, calls := record()
	s := l.Define("a", handler, 1)
	require.NoError(t, l.Start())
	require.NoError(t, s.Register(in(1001), nil))
	first := newest()
	l.mu.Lock()
	works, failures := l.newPoller, 3
	l.newPoller = func() (p poller, err error) {
		if failures--; failures >= 0 {
			return nil, unix.EMFILE
		}
		return works()
	}
	l.mu.Unlock()
	first.fail(unix.EIO)
	for range 3 {
		for _, want := range []string{"poll failed", "poller cannot be replaced"} {
			require.Contains(t, await(t, lines), want)
		}
		first.fail(unix.EIO)
	}
	require.Contains(t, await(t, lines), "poll failed")
	newest().fire(1001)
	require.EqualValues(t, 1001, await(t, calls).Fd)
}

func TestClosedEpollDescriptorIsReplaced(t *testing.T) {
	l := newLoop(t, Config{})
	handler, calls := record()
	s := l.Define("a", handler, 2)
	require.NoError(t, l.Start())
	a, peerA := socketpair(t)
	b, peerB := socketpair(t)
	require.NoError(t, s.Register(in(a), nil))
	barrier(t, l)
	l.mu.Lock()
	p := l.poller.(*epoll)
	require.NoError(t, unix.Close(p.fd))
	l.mu.Unlock()
	require.NoError(t, s.Register(in(a, b), nil))
	send(t, peerA, "a")
	require.Equal(t, "a", await(t, calls).text)
	send(t, peerB, "b")
	require.Equal(t, "b", await(t, calls).text)
	calm(t, l)
}

func TestSignalsAreNeverReported(t *testing.T) {
	log, lines := records()
	l := newLoop(t, Config{LockThread: true, Logger: log})
	tids := make(chan int, 10)
	s := l.Define("a", func(ev *Event) { read(ev.Fd); tids <- unix.Gettid() }, 1)
	require.NoError(t, l.Start())
	ours, peer := socketpair(t)
	require.NoError(t, s.Register(in(ours), nil))
	send(t, peer, "x")
	tid := await(t, tids)
	for range 1000 {
		require.NoError(t, unix.Tgkill(unix.Getpid(), tid, unix.SIGURG))
	}
	send(t, peer, "x")
	require.Equal(t, tid, await(t, tids))
	require.NoError(t, l.Stop())
	none(t, lines)
}

// Zephyr's issue 111912.
func TestHangUpDoesNotSpin(t *testing.T) {
	l := newLoop(t, Config{})
	calls := make(chan Event, 1000)
	s := l.Define("a", func(ev *Event) { calls <- *ev }, 1) // ignores it
	require.NoError(t, l.Start())
	ours, peer := pair(t, unix.SOCK_STREAM)
	require.NoError(t, s.Register([]unix.PollFd{{Fd: ours, Events: unix.POLLPRI}}, nil))
	closeEarly(t, peer)
	require.EqualValues(t, unix.POLLHUP, await(t, calls).Revents)
	calm(t, l)
	require.Less(t, len(calls), 3)
}

// Zephyr's issue 113090.
func TestHangUpLosesNoBytes(t *testing.T) {
	l := newLoop(t, Config{})
	texts := make(chan string, 10)
	s := l.Define("a", func(ev *Event) {
		var buf [1]byte // one byte a call: the hang-up is there from the first
		n, _ := unix.Read(int(ev.Fd), buf[:])
		texts <- string(buf[:n])
		if n == 0 {
			_ = ev.Service.Unregister()
		}
	}, 1)
	require.NoError(t, l.Start())
	ours, peer := pair(t, unix.SOCK_STREAM)
	send(t, peer, "bye")
	closeEarly(t, peer)
	require.NoError(t, s.Register(in(ours), nil))
	for _, want := range []string{"b", "y", "e", ""} {
		require.Equal(t, want, await(t, texts))
	}
	calm(t, l)
	none(t, texts)
}

func TestRollbackRestoresTheKernelsSet(t *testing.T) {
	l, newest := newFakeLoop(t, Config{})
	s, other := l.Define("a", nothing, 3), l.Define("b", nothing, 1)
	require.NoError(t, l.Start())
	require.NoError(t, s.Register(in(1001, 1002), "old"))
	require.NoError(t, other.Register([]unix.PollFd{{Fd: 1002, Events: unix.POLLOUT}}, nil))
	before := newest().polled()
	require.Equal(t, map[int]uint32{1001: unix.EPOLLIN, 1002: unix.EPOLLIN | unix.EPOLLOUT}, before)
	for fd := 1002; fd <= 1004; fd++ {
		newest().refuse = func(op, refused int) error {
			if refused == fd {
				return unix.ENOSPC
			}
			return nil
		}
		set := []unix.PollFd{{Fd: 1003, Events: unix.POLLOUT}, {Fd: 1002, Events: unix.POLLPRI}, {Fd: 1004}}
		require.ErrorIs(t, s.Register(set, "new"), unix.ENOSPC)
		newest().refuse = nil
		require.Equal(t, before, newest().polled(), "refused: %d", fd)
		require.Equal(t, in(1001, 1002), polled(s))
	}
}
