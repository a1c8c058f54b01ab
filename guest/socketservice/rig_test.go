package socketservice

import (
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// patience is how long a test waits for an event that must happen.
const patience = 20 * time.Second

func TestMain(m *testing.M) {
	if sweepEvery != time.Second {
		panic("the documentation says that the loop looks for closed sockets every second")
	}
	sweepEvery = 50 * time.Millisecond
	goleak.VerifyTestMain(m)
}

// newLoop returns a loop that is stopped when the test ends.
func newLoop(t testing.TB, c Config) *Loop {
	l := NewLoop(c)
	l.slow = time.Hour // a busy host may stop a handler for longer than the usual second, and tests read every record
	t.Cleanup(func() {
		require.NoError(t, l.Stop())
		require.Nil(t, l.poller)
		require.Empty(t, l.retired)
	})
	return l
}

// socketpair returns two connected non-blocking datagram sockets: one for the
// service and one for the test. They are closed at the test's end.
func socketpair(t testing.TB) (ours, peer int32) { return pair(t, unix.SOCK_DGRAM) }

func pair(t testing.TB, kind int) (ours, peer int32) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	t.Cleanup(func() {
		shut(int32(fds[0]))
		shut(int32(fds[1]))
	})
	return int32(fds[0]), int32(fds[1])
}

// shut closes a descriptor at most once. So a test that closes it early does not close
// another file under the same number later.
func shut(fd int32) {
	inUse.Lock()
	defer inUse.Unlock()
	if inUse.closed[fd] {
		delete(inUse.closed, fd)
		return
	}
	_ = unix.Close(int(fd))
}

var inUse = struct {
	sync.Mutex
	closed map[int32]bool
}{closed: map[int32]bool{}}

// closeEarly closes a descriptor of pair before the test's end.
func closeEarly(t testing.TB, fd int32) {
	require.NoError(t, unix.Close(int(fd)))
	inUse.Lock()
	defer inUse.Unlock()
	inUse.closed[fd] = true
}

// closed notes that the loop has closed descriptors of pair.
func closed(fds ...int32) {
	inUse.Lock()
	defer inUse.Unlock()
	for _, fd := range fds {
		inUse.closed[fd] = true
	}
}

// hold keeps the loop in a handler until the test calls the returned function.
func (l *Loop) hold(t testing.TB) (release func()) {
	entered, proceed := make(chan bool), make(chan bool)
	gate := l.Define("gate", func(ev *Event) { read(ev.Fd); entered <- true; <-proceed }, 1)
	ours, peer := socketpair(t)
	require.NoError(t, gate.Register(in(ours), nil))
	send(t, peer, "x")
	await(t, entered)
	return func() {
		close(proceed)
		require.NoError(t, gate.Unregister())
	}
}

func send(t testing.TB, fd int32, text string) {
	t.Helper()
	_, err := unix.Write(int(fd), []byte(text))
	require.NoError(t, err)
}

// read returns what can be read from a socket at once.
func read(fd int32) string {
	buf := make([]byte, 1500)
	n, err := unix.Read(int(fd), buf)
	if err != nil {
		return err.Error()
	}
	return string(buf[:n])
}

// seen holds the event of a handler call.
type seen struct {
	Event
	text string
}

// record returns a handler that reads the socket and passes on the event.
func record() (Handler, chan seen) {
	calls := make(chan seen, 1000)
	return func(ev *Event) {
		s := seen{Event: *ev}
		if ev.Revents&unix.POLLIN != 0 {
			s.text = read(ev.Fd)
		}
		calls <- s
	}, calls
}

// await returns the next value, or fails the test when there is none in time.
func await[T any](t testing.TB, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		require.FailNow(t, "nothing happened")
		panic("unreachable")
	}
}

// in returns a set of descriptors to be polled for input.
func in(fds ...int32) []unix.PollFd {
	set := make([]unix.PollFd, len(fds))
	for i, fd := range fds {
		set[i] = unix.PollFd{Fd: fd, Events: unix.POLLIN}
	}
	return set
}

// polled returns the sockets of a service without their user data.
func polled(s *Service) (fds []unix.PollFd) {
	for _, sock := range s.Sockets() {
		fds = append(fds, sock.PollFd)
	}
	return fds
}

// barrier waits until the loop has served all sockets that were ready before the call. It
// sends itself an event twice, and the loop serves events in rounds.
func barrier(t testing.TB, l *Loop) {
	t.Helper()
	handler, calls := record()
	s := l.Define("barrier", handler, 1)
	ours, peer := socketpair(t)
	require.NoError(t, s.Register(in(ours), nil))
	for range 2 {
		send(t, peer, "x")
		await(t, calls)
	}
	require.NoError(t, s.Unregister())
}

func none[T any](t testing.TB, c <-chan T) {
	t.Helper()
	select {
	case v := <-c:
		require.FailNow(t, "unexpected", "%+v", v)
	default:
	}
}

// records is a logger for whose records a test can wait.
func records() (*slog.Logger, chan string) {
	lines := make(chan string, 1000)
	return slog.New(slog.NewTextHandler(writer(lines), nil)), lines
}

type writer chan string

func (w writer) Write(b []byte) (int, error) {
	w <- string(b)
	return len(b), nil
}
