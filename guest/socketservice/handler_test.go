package socketservice

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestEveryCallIsLegalInAHandler(t *testing.T) {
	l := newLoop(t, Config{})
	handler, calls := record()
	other := l.Define("other", handler, 2)
	a, peerA := socketpair(t)
	b, peerB := socketpair(t)
	done := make(chan error, 1)
	s := l.Define("a", func(ev *Event) {
		read(ev.Fd)
		defined := l.Define("defined in a handler", handler, 1)
		for _, f := range []func() error{
			func() error { return other.Register(in(b), "from a") },
			func() error { return defined.Register(in(b), "from a") },
			defined.Unregister,
			ev.Service.Unregister,
			func() error { return ev.Service.Register(in(ev.Fd), nil) },
			other.Unregister,
			func() error { return other.Register(in(b), "again") },
		} {
			if err := f(); err != nil {
				done <- err
				return
			}
		}
		for s := range l.All() {
			s.Sockets()
			s.Stats()
		}
		done <- nil
	}, 1)
	require.NoError(t, l.Start())
	require.NoError(t, s.Register(in(a), nil))
	for range 2 {
		send(t, peerA, "go")
		require.NoError(t, await(t, done))
		send(t, peerB, "x")
		require.Equal(t, "again", await(t, calls).UserData)
	}
}

func TestOneHandlerRunsAtATime(t *testing.T) {
	l := newLoop(t, Config{})
	var running, total atomic.Int32
	handler := func(ev *Event) {
		if running.Add(1) != 1 {
			t.Error("two handlers at once")
		}
		read(ev.Fd)
		runtime.Gosched()
		total.Add(1)
		running.Add(-1)
	}
	const services, each = 8, 100
	require.Zero(t, total.Load())
	var peers []int32
	var defined []*Service
	for range services {
		defined = append(defined, l.Define("s", handler, 1))
	}
	require.NoError(t, l.Start())
	for _, s := range defined {
		ours, peer := socketpair(t)
		require.NoError(t, s.Register(in(ours), nil))
		peers = append(peers, peer)
	}
	var wg sync.WaitGroup
	for _, peer := range peers {
		wg.Go(func() {
			for i := 0; i < each; {
				if _, err := unix.Write(int(peer), []byte("x")); err == nil {
					i++
				} else {
					runtime.Gosched()
				}
			}
		})
	}
	wg.Wait()
	barrier(t, l)
	require.Eventually(t, func() bool { return total.Load() == services*each }, patience, 1e6)
	for _, s := range defined {
		st := s.Stats()
		require.EqualValues(t, each, st.Calls)
		require.Zero(t, st.Errors)
		require.Positive(t, st.MaxTime)
		require.GreaterOrEqual(t, st.Time, st.MaxTime)
	}
}

func TestDefineOnARunningLoopObeysPollMax(t *testing.T) {
	l := newLoop(t, Config{PollMax: 4})
	l.Define("a", nothing, 2)
	require.NoError(t, l.Start())
	ours, _ := socketpair(t)
	err := l.Define("big", nothing, 2).Register(in(ours), nil)
	require.ErrorIs(t, err, unix.ENOMEM)
	require.ErrorContains(t, err, "PollMax of 4 is too small, at least 5 needed")
	require.NoError(t, l.Define("small", nothing, 1).Register(in(ours), nil))
}

func TestReventsAreUnfiltered(t *testing.T) {
	l := newLoop(t, Config{})
	calls := make(chan Event, 100)
	s := l.Define("a", func(ev *Event) {
		got := *ev
		_ = ev.Service.Unregister() // before the test registers the next
		calls <- got
	}, 1)
	require.NoError(t, l.Start())

	hup, peer := pair(t, unix.SOCK_STREAM)
	closeEarly(t, peer)
	require.NoError(t, s.Register([]unix.PollFd{{Fd: hup}}, nil))
	require.EqualValues(t, unix.POLLHUP, await(t, calls).Revents)

	// An ICMP answer leaves an error on a connected UDP socket. The port is
	// kept by a socket that takes datagrams from itself only, so that no
	// other program can be there.
	udp4 := func() int {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		require.NoError(t, err)
		t.Cleanup(func() { _ = unix.Close(fd) })
		return fd
	}
	nobody, udp := udp4(), udp4()
	require.NoError(t, unix.Bind(nobody, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	addr, err := unix.Getsockname(nobody)
	require.NoError(t, err)
	require.NoError(t, unix.Connect(nobody, addr))
	require.NoError(t, unix.Connect(udp, addr))
	require.NoError(t, s.Register([]unix.PollFd{{Fd: int32(udp)}}, nil))
	send(t, int32(udp), "to nobody")
	require.EqualValues(t, unix.POLLERR, await(t, calls).Revents)
	barrier(t, l) // a call is counted when it has returned
	require.EqualValues(t, 1, s.Stats().Errors)
}

func TestABadDescriptorGetsOnePOLLNVALAndFreesItsSlot(t *testing.T) {
	l := newLoop(t, Config{})
	calls := make(chan seen, 100)
	s := l.Define("a", func(ev *Event) {
		v := seen{Event: *ev}
		if len(ev.Service.Sockets()) == 1 {
			v.text = "slot is free"
		}
		read(ev.Fd)
		calls <- v
	}, 3)
	require.NoError(t, l.Start())
	good, peer := socketpair(t)
	const bad = 1 << 20
	require.NoError(t, s.Register(in(bad, good, bad), "data"))
	got := await(t, calls)
	require.Equal(t, unix.PollFd{Fd: bad, Events: unix.POLLIN, Revents: unix.POLLNVAL}, got.PollFd)
	require.Equal(t, "data", got.UserData)
	require.Equal(t, "slot is free", got.text)
	send(t, peer, "x")
	require.EqualValues(t, good, await(t, calls).Fd)
	barrier(t, l)
	none(t, calls)
	require.Equal(t, in(good), polled(s))

	require.NoError(t, s.Register(in(bad), nil), "and again")
	require.EqualValues(t, unix.POLLNVAL, await(t, calls).Revents)
}

// A socket is not polled while its handler runs. Input that arrives meanwhile causes one
// more call after that, and only if the slot still holds the socket.
func TestSocketIsPolledAgainOnlyIfTheSlotStillHoldsIt(t *testing.T) {
	l := newLoop(t, Config{})
	calls, proceed := make(chan string, 100), make(chan bool)
	s := l.Define("a", func(ev *Event) {
		calls <- read(ev.Fd)
		if !<-proceed {
			_ = ev.Service.Unregister()
		}
	}, 1)
	require.NoError(t, l.Start())
	ours, peer := socketpair(t)
	require.NoError(t, s.Register(in(ours), nil))
	send(t, peer, "1")
	require.Equal(t, "1", await(t, calls))
	send(t, peer, "2")
	none(t, calls)
	proceed <- true
	require.Equal(t, "2", await(t, calls))
	send(t, peer, "3")
	proceed <- false
	barrier(t, l)
	none(t, calls)
}

// Zephyr's issue 110857.
func TestUnregisterWaitsForTheHandlerThatRuns(t *testing.T) {
	l := newLoop(t, Config{})
	entered, proceed := make(chan bool), make(chan bool)
	s := l.Define("a", func(ev *Event) {
		entered <- true
		<-proceed
		_ = ev.Service.Register(in(ev.Fd), "a handler that is waited for cannot undo it")
	}, 1)
	idler := l.Define("b", nothing, 1)
	require.NoError(t, l.Start())
	ours, peer := socketpair(t)
	require.NoError(t, s.Register(in(ours), nil))
	send(t, peer, "never read, so the socket stays ready")
	await(t, entered)
	result := make(chan error, 1)
	go func() { result <- s.Unregister() }()
	require.NoError(t, idler.Unregister(), "the handler of another service is not waited for")
	waiting := func() bool { l.mu.Lock(); defer l.mu.Unlock(); return l.quiescing[s] == 1 }
	require.Eventually(t, waiting, patience, 1e6)
	none(t, result)
	proceed <- true
	require.NoError(t, await(t, result))
	require.Empty(t, s.Sockets())
	closeEarly(t, ours)
	barrier(t, l)
	none(t, entered)
}

func TestStopEndsEverything(t *testing.T) {
	l := newLoop(t, Config{})
	entered, proceed := make(chan bool), make(chan bool)
	s := l.Define("a", func(*Event) { entered <- true; <-proceed }, 1)
	require.NoError(t, l.Start())
	ours, peer := socketpair(t)
	require.NoError(t, s.Register(in(ours), nil))
	send(t, peer, "x")
	await(t, entered)
	result := make(chan error, 1)
	go func() { result <- l.Stop() }()
	stopping := func() bool { l.mu.Lock(); defer l.mu.Unlock(); return l.state == stopped }
	require.Eventually(t, stopping, patience, 1e6)
	none(t, result)
	proceed <- true
	require.NoError(t, await(t, result))
	for _, err := range []error{s.Register(in(ours), nil), s.Unregister(), l.Start()} {
		require.ErrorIs(t, err, unix.EIO)
		require.ErrorContains(t, err, "loop stopped")
	}
	require.NoError(t, l.Stop(), "may be repeated")
	require.Empty(t, s.Sockets())
	require.True(t, isOpen(int(ours)), "sockets stay open")
}

func TestStopInAHandlerDoesNotWait(t *testing.T) {
	l := newLoop(t, Config{})
	result := make(chan error, 1)
	s := l.Define("a", func(*Event) { result <- l.Stop() }, 1)
	require.NoError(t, l.Start())
	ours, peer := socketpair(t)
	require.NoError(t, s.Register(in(ours), nil))
	send(t, peer, "x")
	require.NoError(t, await(t, result))
}

func TestLockThreadAndPriority(t *testing.T) {
	l := newLoop(t, Config{LockThread: true, Priority: 5})
	type thread struct{ tid, nice int }
	calls := make(chan thread, 1)
	s := l.Define("a", func(ev *Event) {
		read(ev.Fd)
		nice, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
		if err != nil {
			t.Error(err)
		}
		calls <- thread{unix.Gettid(), 20 - nice} // the system call returns 20 less the value
	}, 1)
	require.NoError(t, l.Start())
	ours, peer := socketpair(t)
	require.NoError(t, s.Register(in(ours), nil))
	var first thread
	for range 10 {
		send(t, peer, "x")
		got := await(t, calls)
		if first.tid == 0 {
			first = got
		}
		require.Equal(t, first, got)
	}
	require.Equal(t, 5, first.nice)
}

func TestNoAllocationPerEvent(t *testing.T) {
	l := newLoop(t, Config{})
	served := make(chan struct{})
	var buf [16]byte
	s := l.Define("a", func(ev *Event) {
		_, _ = unix.Read(int(ev.Fd), buf[:])
		served <- struct{}{}
	}, 1)
	require.NoError(t, l.Start())
	ours, peer := socketpair(t)
	require.NoError(t, s.Register(in(ours), "data"))
	x := []byte("x")
	require.Zero(t, testing.AllocsPerRun(1000, func() {
		_, _ = unix.Write(int(peer), x)
		<-served
	}))
}
