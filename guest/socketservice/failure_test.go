package socketservice

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// ill is a cause of panics whose methods panic too.
type ill struct{ harm func() }

func (i ill) Error() string { i.harm(); return "" }

// one requires that the loop has exactly one goroutine.
func one(t *testing.T) {
	t.Helper()
	buf := make([]byte, 1<<20)
	buf = buf[:runtime.Stack(buf, true)]
	require.Equal(t, 1, bytes.Count(buf, []byte("socketservice.(*Loop).run(")), "%s", buf)
}

func TestAFailedHandlerLosesItsSocketAndTheLoopContinues(t *testing.T) {
	for _, test := range []struct {
		name  string
		debug string // GODEBUG
		fail  func(ev *Event)
		want  string // the cause that is logged
	}{
		{"panic", "", func(*Event) { panic("no!") }, "no!"},
		{"error", "", func(*Event) { panic(errors.New("no!")) }, "no!"},
		{"nil", "panicnil=0", func(*Event) { panic(nil) }, "panic called with nil argument"},
		{"nil as it was", "panicnil=1", func(*Event) { panic(nil) }, "panic with nil"},
		{"Goexit", "", func(*Event) { runtime.Goexit() }, "runtime.Goexit"},
		{"Goexit, nil as it was", "panicnil=1", func(*Event) { runtime.Goexit() }, "runtime.Goexit"},
		{"cause that panics", "", func(*Event) { panic(ill{func() { panic("twice") }}) }, "PANIC=Error method: twice"},
		{"cause that panics with one that panics", "", func(*Event) {
			panic(ill{func() { panic(ill{func() { panic("thrice") }}) }})
		}, "a socketservice.ill that cannot be printed"},
		{"panic in a deferred function", "", func(*Event) { defer panic("second"); panic("first") }, "second"},
		{"event destroyed", "", func(ev *Event) { *ev = Event{}; panic("no!") }, "no!"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.debug != "" {
				t.Setenv("GODEBUG", test.debug)
			}
			log, lines := records()
			l := newLoop(t, Config{Logger: log})
			handler, calls := record()
			s := l.Define("a", func(ev *Event) {
				handler(ev)
				if ev.UserData == "bad" {
					test.fail(ev)
				}
			}, 1)
			other := l.Define("b", handler, 1)
			require.NoError(t, l.Start())
			a, peerA := socketpair(t)
			b, peerB := socketpair(t)
			require.NoError(t, other.Register(in(b), nil))
			for range 3 {
				require.NoError(t, s.Register(in(a), "bad"))
				send(t, peerA, "x")
				await(t, calls)
				line := await(t, lines)
				for _, want := range []string{"level=ERROR", "module=net_sock_svc", "service=a", "fd=", "stack=", "failure_test.go", test.want} {
					require.Contains(t, line, want)
				}
				send(t, peerB, "y")
				require.Equal(t, "y", await(t, calls).text)
				require.Empty(t, s.Sockets())
				one(t)
			}
			require.EqualValues(t, 3, s.Stats().Errors)
			require.EqualValues(t, 3, s.Stats().Calls)
			require.NoError(t, s.Register(in(a), "good"), "it may be registered again")
			send(t, peerA, "z")
			require.Equal(t, "z", await(t, calls).text)
			require.NoError(t, l.Stop())
			none(t, lines)
		})
	}
}

// Sockets that are ready together with one whose handler fails are served as usual.
func TestGoexitDropsNoOtherCall(t *testing.T) {
	l := newLoop(t, Config{Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
	handler, calls := record()
	const n = 4
	s := l.Define("a", func(ev *Event) {
		handler(ev)
		runtime.Goexit()
	}, n)
	require.NoError(t, l.Start())
	bad := int32(1 << 20)
	set := in(bad)
	peers := map[int32]bool{bad: true}
	for range n - 1 {
		ours, peer := socketpair(t)
		set = append(set, in(ours)...)
		send(t, peer, "x")
		peers[ours] = true
	}
	require.NoError(t, s.Register(set, nil))
	for range n {
		fd := await(t, calls).Fd
		require.True(t, peers[fd], "called twice")
		delete(peers, fd)
	}
	calm(t, l)
	require.Empty(t, s.Sockets())
	one(t)
}

// A logger is code of the program and may fail.
type badLogger struct {
	slog.Handler
	fail func()
}

func (b badLogger) WithAttrs([]slog.Attr) slog.Handler { return b }

func (b badLogger) Write([]byte) (int, error) {
	b.fail()
	return 0, nil
}

func TestAFailedLoggerDoesNotStopTheLoop(t *testing.T) {
	for name, fail := range map[string]func(){
		"panic":  func() { panic("of the logger") },
		"Goexit": runtime.Goexit,
	} {
		for cause, badly := range map[string]func(){"panic": func() { panic("no!") }, "Goexit": runtime.Goexit} {
			t.Run(name+" after "+cause, func(t *testing.T) {
				logged := make(chan bool, 10)
				b := badLogger{fail: func() { logged <- true; fail() }}
				b.Handler = slog.NewTextHandler(b, nil)
				l := newLoop(t, Config{Logger: slog.New(b.Handler)})
				handler, calls := record()
				s := l.Define("a", func(ev *Event) {
					handler(ev)
					badly()
				}, 1)
				require.NoError(t, l.Start())
				ours, peer := socketpair(t)
				for range 3 {
					require.NoError(t, s.Register(in(ours), nil))
					send(t, peer, "x")
					require.Equal(t, "x", await(t, calls).text)
					await(t, logged)
					barrier(t, l)
					require.Empty(t, s.Sockets())
				}
				require.EqualValues(t, 3, s.Stats().Errors)
				one(t)
			})
		}
	}
}

func TestStopAfterAFailureEndsTheLoop(t *testing.T) {
	for name, fail := range map[string]func(){"panic": func() { panic(nil) }, "Goexit": runtime.Goexit} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("GODEBUG", "panicnil=1")
			log, lines := records()
			l := newLoop(t, Config{Logger: log})
			s := l.Define("a", func(ev *Event) {
				if err := l.Stop(); err != nil {
					t.Error(err)
				}
				fail()
			}, 1)
			require.NoError(t, l.Start())
			ours, peer := socketpair(t)
			require.NoError(t, s.Register(in(ours), nil))
			send(t, peer, "x")
			require.True(t, strings.Contains(await(t, lines), "handler failed"))
			require.NoError(t, l.Stop())
		})
	}
}
