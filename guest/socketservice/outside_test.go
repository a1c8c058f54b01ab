package socketservice

import (
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// taking lists the calls that remove a socket from a service, with the sockets that the service
// has afterwards.
var taking = map[string]func(s *Service, fd, other int32) ([]unix.PollFd, error){
	"Register": func(s *Service, fd, other int32) ([]unix.PollFd, error) { return in(other), s.Register(in(other), nil) },
	"RegisterEach": func(s *Service, fd, other int32) ([]unix.PollFd, error) {
		return in(other), s.RegisterEach([]Socket{{PollFd: in(other)[0]}})
	},
	"Register with the same socket": func(s *Service, fd, other int32) ([]unix.PollFd, error) {
		return in(fd, other), s.Register(in(fd, other), nil)
	},
	"Register of nothing": func(s *Service, fd, other int32) ([]unix.PollFd, error) { return nil, s.Register(nil, nil) },
	"Unregister":          func(s *Service, fd, other int32) ([]unix.PollFd, error) { return nil, s.Unregister() },
	"Remove":              func(s *Service, fd, other int32) ([]unix.PollFd, error) { return nil, s.Remove(int(fd)) },
	"Close":               func(s *Service, fd, other int32) ([]unix.PollFd, error) { return nil, s.Close() },
}

// Zephyr's issue 110857.
func TestACallThatRemovesASocketWaitsForItsHandler(t *testing.T) {
	for name, take := range taking {
		t.Run(name, func(t *testing.T) {
			l := newLoop(t, Config{})
			entered, proceed := make(chan bool), make(chan bool)
			texts := make(chan string, 1)
			s := l.Define("a", func(ev *Event) {
				if ev.UserData != "old" {
					return
				}
				entered <- true
				<-proceed
				texts <- read(ev.Fd)
				_ = ev.Service.Add(int(ev.Fd), unix.POLLIN, "a handler that is waited for cannot undo it")
			}, 2)
			idler := l.Define("b", nothing, 1)
			require.NoError(t, l.Start())
			ours, peer := socketpair(t)
			other, _ := socketpair(t)
			require.NoError(t, s.Register(in(ours), "old"))
			send(t, peer, "for the handler")
			await(t, entered)

			var err error
			var want []unix.PollFd
			done := make(chan bool, 1)
			go func() {
				want, err = take(s, ours, other)
				done <- true
			}()
			waiting := func() bool { l.mu.Lock(); defer l.mu.Unlock(); return l.quiescing[s] == 1 }
			require.Eventually(t, waiting, patience, 1e6)
			none(t, done)
			require.NoError(t, idler.Register(in(other), nil), "the handler of another service is not waited for")
			require.NoError(t, s.Add(int(other), unix.POLLIN, nil), "and Add takes nothing")
			proceed <- true
			await(t, done)
			require.NoError(t, err)
			require.Equal(t, "for the handler", await(t, texts), "the handler had returned")
			if name == "Close" {
				closed(ours, other)
			} else if name == "Remove" {
				want = in(other)
			}
			require.Equal(t, want, polled(s))
		})
	}
}

// The caller closes the socket that it has replaced, and the number goes to another file.
func TestAfterRegisterTheOldSocketCanBeClosed(t *testing.T) {
	l := newLoop(t, Config{})
	entered, proceed, texts := make(chan bool), make(chan bool), make(chan string, 10)
	s := l.Define("a", func(ev *Event) {
		entered <- true
		<-proceed
		texts <- read(ev.Fd)
	}, 1)
	require.NoError(t, l.Start())
	ours, peer := socketpair(t)
	next, _ := socketpair(t)
	stranger, strangersPeer := socketpair(t)
	send(t, strangersPeer, "private")
	require.NoError(t, s.Register(in(ours), nil))
	send(t, peer, "for the service")
	await(t, entered)
	done := make(chan error, 1)
	go func() {
		err := s.Register(in(next), nil)
		if err == nil {
			err = unix.Dup3(int(stranger), int(ours), unix.O_CLOEXEC) // closes the old one
		}
		done <- err
	}()
	waiting := func() bool { l.mu.Lock(); defer l.mu.Unlock(); return l.quiescing[s] == 1 }
	require.Eventually(t, waiting, patience, 1e6)
	proceed <- true
	require.NoError(t, await(t, done))
	require.Equal(t, "for the service", await(t, texts))
	require.Equal(t, "private", read(stranger))
	calm(t, l)
	none(t, texts)
}

// The kernel would refuse the call also after the wait.
func TestARefusedRegisterDoesNotWait(t *testing.T) {
	l := newLoop(t, Config{})
	entered, proceed := make(chan bool), make(chan bool)
	s := l.Define("a", func(ev *Event) { read(ev.Fd); entered <- true; <-proceed }, 1)
	require.NoError(t, l.Start())
	ours, peer := socketpair(t)
	require.NoError(t, s.Register(in(ours), nil))
	send(t, peer, "x")
	await(t, entered)
	require.ErrorIs(t, s.Register(in(ours, ours), nil), unix.ENOMEM)
	proceed <- true
	barrier(t, l)
}

func TestRegisterThatWaitsWhenTheLoopIsStoppedFails(t *testing.T) {
	l := newLoop(t, Config{})
	entered, proceed := make(chan bool), make(chan bool)
	s := l.Define("a", func(ev *Event) { entered <- true; <-proceed }, 1)
	require.NoError(t, l.Start())
	ours, peer := socketpair(t)
	require.NoError(t, s.Register(in(ours), nil))
	send(t, peer, "x")
	await(t, entered)
	registered, ended := make(chan error, 1), make(chan error, 1)
	go func() { registered <- s.Register(in(ours), nil) }()
	waiting := func() bool { l.mu.Lock(); defer l.mu.Unlock(); return l.quiescing[s] == 1 }
	require.Eventually(t, waiting, patience, 1e6)
	go func() { ended <- l.Stop() }()
	stopping := func() bool { l.mu.Lock(); defer l.mu.Unlock(); return l.state == stopped }
	require.Eventually(t, stopping, patience, 1e6)
	proceed <- true
	require.ErrorIs(t, await(t, registered), unix.EIO)
	require.NoError(t, await(t, ended))
}

// While a call waits, the loop does not serve the service's other sockets. It must not lose
// an error or a hang-up meanwhile, which the kernel reports only once.
func TestAHangUpDuringAWaitIsReportedAfterIt(t *testing.T) {
	l, newest := newFakeLoop(t, Config{})
	entered, proceed := make(chan bool), make(chan bool)
	calls := make(chan Event, 10)
	s := l.Define("a", func(ev *Event) {
		if ev.Fd == 1001 {
			entered <- true
			<-proceed
			return
		}
		calls <- *ev
	}, 3)
	require.NoError(t, l.Start())
	require.NoError(t, s.Register(in(1001, 1002, 1003), nil))
	// As for a hang-up that was reported before: the kernel reports it no more.
	l.mu.Lock()
	l.lookup(1002).parked = true
	l.mu.Unlock()
	f := newest()
	f.mu.Lock()
	hangUp := f.interest[1002]
	hangUp.Events |= unix.EPOLLET
	f.interest[1002] = hangUp
	hangUp.Events = unix.EPOLLHUP
	input := f.interest[1001]
	input.Events = unix.EPOLLIN
	f.rounds = append(f.rounds, []unix.EpollEvent{input, hangUp})
	f.changed.Signal()
	f.mu.Unlock()
	await(t, entered)
	removed := make(chan error, 1)
	go func() { removed <- s.Remove(1003) }()
	waiting := func() bool { l.mu.Lock(); defer l.mu.Unlock(); return l.quiescing[s] == 1 }
	require.Eventually(t, waiting, patience, 1e6)
	proceed <- true
	require.NoError(t, await(t, removed))
	// The kernel is asked again, without EPOLLET.
	require.Eventually(t, func() bool { return newest().polled()[1002] == unix.EPOLLIN }, patience, 1e6)
}
