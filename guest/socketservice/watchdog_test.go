package socketservice

import (
	"bytes"
	"log/slog"
	"regexp"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// hurried returns a loop that calls a handler slow after a short time, and the loop's records
// that contain the text. On a busy host such a loop may call any handler slow.
func hurried(t *testing.T, text string) (*Loop, chan string) {
	lines := make(chan string, 1000)
	l := newLoop(t, Config{Logger: slog.New(slog.NewTextHandler(only{text, lines}, nil))})
	require.Equal(t, time.Second, NewLoop(Config{}).slow)
	l.slow = 40 * time.Millisecond
	return l, lines
}

type only struct {
	text  string
	lines chan string
}

func (o only) Write(line []byte) (int, error) {
	if bytes.Contains(line, []byte(o.text)) {
		o.lines <- string(line)
	}
	return len(line), nil
}

// looked waits until the watchdog has looked a number of times.
func looked(t *testing.T, l *Loop, times int) {
	t.Helper()
	for range times {
		l.mu.Lock()
		before := l.lookedAt
		l.mu.Unlock()
		require.Eventually(t, func() bool { l.mu.Lock(); defer l.mu.Unlock(); return l.lookedAt != before }, patience, 1e6)
	}
}

func waitOn(proceed chan bool) { <-proceed }

func TestASlowHandlerIsLoggedWhileItRunsAndWhenItReturns(t *testing.T) {
	l, lines := hurried(t, "service=slow")
	entered, proceed := make(chan bool), make(chan bool)
	s := l.Define("slow", func(ev *Event) {
		read(ev.Fd)
		entered <- true
		waitOn(proceed)
	}, 1)
	require.NoError(t, l.Start())
	ours, peer := socketpair(t)
	require.NoError(t, s.Register(in(ours), nil))
	for range 2 { // every time that it happens
		send(t, peer, "x")
		await(t, entered)
		line := await(t, lines)
		for _, want := range []string{"level=WARN", "module=net_sock_svc", `msg="handler is slow`, "service=slow",
			"owner=socketservice/watchdog_test.go:", "fd=", "runs=", "socketservice.waitOn"} {
			require.Contains(t, line, want)
		}
		require.Equal(t, 1, len(regexp.MustCompile(`goroutine \d+ \[`).FindAllString(line, -1)), "the loop's stack alone")
		time.AfterFunc(l.slow, func() { close(entered) }) // the loop logs it once, however long the handler runs
		<-entered
		entered = make(chan bool)
		none(t, lines)
		proceed <- true
		line = await(t, lines)
		for _, want := range []string{"level=WARN", `msg="slow handler returned"`, "service=slow", "fd=", "took="} {
			require.Contains(t, line, want)
		}
	}
	barrier(t, l)
	none(t, lines)
}

func TestAHandlerThatNeverReturnsIsLogged(t *testing.T) {
	l, lines := hurried(t, "service=stuck")
	proceed := make(chan bool)
	s := l.Define("stuck", func(ev *Event) { waitOn(proceed) }, 1)
	require.NoError(t, l.Start())
	ours, peer := socketpair(t)
	require.NoError(t, s.Register(in(ours), nil))
	send(t, peer, "x")
	require.Contains(t, await(t, lines), "service=stuck")
	stopped := make(chan error, 1)
	go func() { stopped <- l.Stop() }()
	close(proceed)
	require.NoError(t, await(t, stopped))
}

func TestTheWatchdogSleepsWhenNothingHappens(t *testing.T) {
	l, lines := hurried(t, "service=idle")
	l.Define("idle", nothing, 1)
	require.NoError(t, l.Start())
	watching := func() bool { l.mu.Lock(); defer l.mu.Unlock(); return l.watching }
	require.False(t, watching())
	for range 2 {
		barrier(t, l)
		require.Eventually(t, func() bool { return !watching() }, patience, 1e6)
	}
	none(t, lines)
}

func TestASocketThatIsWritableWithoutEndIsLoggedOnceForEachService(t *testing.T) {
	l, lines := hurried(t, "POLLOUT")
	both := l.Define("both", func(ev *Event) {
		if ev.Revents&unix.POLLIN != 0 {
			read(ev.Fd)
		}
	}, 1)
	writes := l.Define("writes", nothing, 2)
	require.NoError(t, l.Start())
	a, _ := socketpair(t)
	b, _ := socketpair(t)
	require.NoError(t, writes.Register([]unix.PollFd{{Fd: a, Events: unix.POLLOUT}, {Fd: b, Events: unix.POLLOUT}}, nil))
	line := await(t, lines)
	for _, want := range []string{"level=WARN", "poll for POLLOUT only while something waits to be sent", "service=writes",
		"owner=socketservice/watchdog_test.go:", "fd="} {
		require.Contains(t, line, want)
	}
	c, peer := socketpair(t)
	require.NoError(t, both.Register([]unix.PollFd{{Fd: c, Events: unix.POLLIN | unix.POLLOUT}}, nil))
	send(t, peer, "now and then")
	require.Contains(t, await(t, lines), "service=both")
	looked(t, l, 2*looks)
	none(t, lines)
	require.NoError(t, writes.Unregister())
	require.NoError(t, both.Unregister())
}

// The loop does not warn of a sender that fills the socket, of a socket that is always
// readable, or of one that is readable and writable.
func TestBusySocketsAreNotLogged(t *testing.T) {
	l, lines := hurried(t, "POLLOUT")
	buf := make([]byte, 4096)
	sends := l.Define("sends", func(ev *Event) {
		for {
			if _, err := unix.Write(int(ev.Fd), buf); err != nil {
				return
			}
		}
	}, 1)
	sink := make([]byte, 16)
	receives := l.Define("receives", func(ev *Event) { _, _ = unix.Read(int(ev.Fd), sink) }, 1)
	floods := l.Define("floods", nothing, 2)
	require.NoError(t, l.Start())
	a, b := pair(t, unix.SOCK_STREAM)
	c, peerC := socketpair(t)
	d, peerD := socketpair(t)
	send(t, peerC, "never read")
	send(t, peerD, "never read")
	require.NoError(t, sends.Register([]unix.PollFd{{Fd: a, Events: unix.POLLOUT}}, nil))
	require.NoError(t, receives.Register(in(b), nil))
	require.NoError(t, floods.Register([]unix.PollFd{{Fd: c, Events: unix.POLLIN}, {Fd: d, Events: unix.POLLIN | unix.POLLOUT}}, nil))
	looked(t, l, 3*looks)
	none(t, lines)
	for _, s := range []*Service{sends, receives, floods} {
		require.NoError(t, s.Unregister())
	}
}
