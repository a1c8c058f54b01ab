package socketservice

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// numbers returns the descriptors of the loop's poller.
func (l *Loop) numbers() map[string]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.poller.(*epoll)
	return map[string]int{"epoll": p.fd, "eventfd": p.bell}
}

// thieves open files that a program may put under a number that it does not own. Each
// returns a check that the loop has not read, written or closed the file.
var thieves = map[string]func(t *testing.T) (fd int, untouched func()){
	"nothing": nil,
	"a socket": func(t *testing.T) (int, func()) {
		ours, peer := socketpair(t)
		send(t, peer, "unread")
		return int(ours), func() {
			require.Equal(t, "unread", read(ours))
			require.Equal(t, unix.EAGAIN.Error(), read(peer), "written to")
		}
	},
	"a file": func(t *testing.T) (int, func()) {
		file, err := os.CreateTemp(t.TempDir(), "")
		require.NoError(t, err)
		t.Cleanup(func() { _ = file.Close() })
		return int(file.Fd()), func() {
			info, err := file.Stat()
			require.NoError(t, err)
			require.Zero(t, info.Size(), "written to")
		}
	},
	"an eventfd": func(t *testing.T) (int, func()) {
		fd, err := unix.Eventfd(7, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
		require.NoError(t, err)
		t.Cleanup(func() { _ = unix.Close(fd) })
		return fd, func() { require.Equal(t, "\a\x00\x00\x00\x00\x00\x00\x00", read(int32(fd))) }
	},
	"another epoll": func(t *testing.T) (int, func()) {
		p, err := newEpoll()
		require.NoError(t, err)
		t.Cleanup(p.close)
		ours, peer := socketpair(t)
		ev := interest(ours, 77, unix.EPOLLIN)
		require.NoError(t, p.control(unix.EPOLL_CTL_ADD, int(ours), &ev))
		return p.(*epoll).fd, func() {
			send(t, peer, "x")
			var events [3]unix.EpollEvent
			n, err := p.wait(events[:])
			require.NoError(t, err)
			require.Equal(t, 1, n)
			require.Equal(t, interest(ours, 77, unix.EPOLLIN), events[0])
		}
	},
}

func TestAPollerThatIsReplacedDuringAHandlerIsReportedAtOnce(t *testing.T) {
	log, lines := records()
	l := newLoop(t, Config{Logger: log})
	handles, goOn := make(chan bool, 1), make(chan struct{})
	s := l.Define("a", func(ev *Event) { read(ev.Fd); handles <- true; <-goOn }, 1)
	require.NoError(t, l.Start())
	a, peer := socketpair(t)
	require.NoError(t, s.Register(in(a), nil))
	send(t, peer, "a")
	await(t, handles)
	require.NoError(t, unix.Close(l.numbers()["epoll"]))
	l.inspect()
	close(goOn)
	require.Contains(t, await(t, lines), `msg="poller replaced"`)
}

func TestAPollerWithoutItsDescriptorIsReplaced(t *testing.T) {
	for _, which := range []string{"epoll", "eventfd"} {
		for name, thief := range thieves {
			t.Run(which+" becomes "+name, func(t *testing.T) {
				log, lines := records()
				l := newLoop(t, Config{Logger: log})
				handler, calls := record()
				s := l.Define("a", handler, 3)
				require.NoError(t, l.Start())
				a, peerA := socketpair(t)
				b, peerB := socketpair(t)
				require.NoError(t, s.Register(in(a), nil))
				barrier(t, l)
				number := l.numbers()[which]
				untouched := func() {}
				if thief == nil {
					require.NoError(t, unix.Close(number))
				} else {
					var fd int
					fd, untouched = thief(t)
					require.NoError(t, unix.Dup3(fd, number, unix.O_CLOEXEC))
					t.Cleanup(func() { _ = unix.Close(number) })
				}
				send(t, peerA, "a")
				require.Equal(t, "a", await(t, calls).text)
				require.Contains(t, await(t, lines), `msg="poller replaced"`, "of itself")
				if thief != nil {
					require.NotEqual(t, number, l.numbers()[which])
				}
				require.NoError(t, s.Register(in(a, b), nil))
				for peer, text := range map[int32]string{peerA: "a", peerB: "b"} {
					send(t, peer, text)
					require.Equal(t, text, await(t, calls).text)
				}
				calm(t, l)
				require.NoError(t, l.Stop())
				none(t, lines)
				require.Equal(t, thief != nil, isOpen(number), "what the program has there is not closed")
				untouched()
			})
		}
	}
}

// A socket of the program has the number, and the program registers it.
func TestASocketUnderThePollersNumberCanBeRegistered(t *testing.T) {
	for _, which := range []string{"epoll", "eventfd"} {
		t.Run(which, func(t *testing.T) {
			l := newLoop(t, Config{})
			handler, calls := record()
			s := l.Define("a", handler, 1)
			require.NoError(t, l.Start())
			barrier(t, l)
			number := l.numbers()[which]
			ours, peer := socketpair(t)
			require.NoError(t, unix.Dup3(int(ours), number, unix.O_CLOEXEC))
			require.NoError(t, s.Register(in(int32(number)), nil))
			send(t, peer, "x")
			got := await(t, calls)
			require.Equal(t, "x", got.text)
			require.EqualValues(t, number, got.Fd)
			calm(t, l)
			require.NoError(t, s.Close())
			require.False(t, isOpen(number), "closed once, by Close")
		})
	}
}

// A program must not register the poller's own descriptors.
func TestThePollersOwnDescriptorsAreRefused(t *testing.T) {
	l := newLoop(t, Config{})
	handler, calls := record()
	s := l.Define("a", handler, 2)
	require.NoError(t, l.Start())
	ours, peer := socketpair(t)
	require.NoError(t, s.Register(in(ours), nil))
	for _, number := range l.numbers() {
		require.ErrorIs(t, s.Add(number, unix.POLLIN, nil), unix.EPERM)
		require.ErrorIs(t, s.Register(in(int32(number)), nil), unix.EPERM)
		require.NoError(t, s.Close())
		closed(ours)
		ours, peer = socketpair(t)
		require.NoError(t, s.Register(in(ours), nil))
	}
	send(t, peer, "x")
	require.Equal(t, "x", await(t, calls).text)
	calm(t, l)
}

// The bell is gone, and no event ends the wait.
func TestAnIdleLoopWithoutItsDescriptorsServesAndStops(t *testing.T) {
	for name, then := range map[string]func(l *Loop, s *Service){
		"stop": func(l *Loop, s *Service) { require.NoError(t, l.Stop()) },
		"register": func(l *Loop, s *Service) {
			ours, _ := socketpair(t)
			require.NoError(t, s.Register(in(ours), nil))
			barrier(t, l)
			require.NoError(t, s.Unregister())
		},
	} {
		t.Run(name, func(t *testing.T) {
			log, _ := records()
			l := newLoop(t, Config{Logger: log})
			s := l.Define("a", nothing, 1)
			require.NoError(t, l.Start())
			waits := func() bool { l.mu.Lock(); defer l.mu.Unlock(); return l.waitsOn != nil }
			require.Eventually(t, waits, patience, 1e6)
			for _, number := range l.numbers() {
				other, _ := socketpair(t)
				require.NoError(t, unix.Dup3(int(other), number, unix.O_CLOEXEC))
				defer unix.Close(number)
			}
			done := make(chan bool)
			go func() { then(l, s); close(done) }()
			await(t, done)
		})
	}
}
