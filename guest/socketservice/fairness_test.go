package socketservice

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// More sockets than one round takes are always ready.
func TestEveryReadySocketIsServedOnceBeforeAnyTwice(t *testing.T) {
	const n = 3*batch + 7
	l := newLoop(t, Config{})
	order, done := make([]int, 0, 10*n), make(chan bool)
	s := l.Define("a", func(ev *Event) {
		if len(order) < cap(order) {
			if order = append(order, ev.UserData.(int)); len(order) == cap(order) {
				close(done)
			}
		}
	}, n)
	require.NoError(t, l.Start())
	held := l.hold(t)
	for i := range n {
		ours, peer := socketpair(t)
		send(t, peer, "never read")
		require.NoError(t, s.Add(int(ours), unix.POLLIN, i))
	}
	held()
	await(t, done)
	require.NoError(t, s.Unregister())
	for pass := range 10 {
		seen := map[int]bool{}
		for _, i := range order[pass*n : (pass+1)*n] {
			require.False(t, seen[i], "socket %d twice in pass %d", i, pass)
			seen[i] = true
		}
	}
}

func TestTheStartOfTheScanRotates(t *testing.T) {
	l, newest := newFakeLoop(t, Config{})
	calls := make(chan int32, 10)
	s := l.Define("a", func(ev *Event) { calls <- ev.Fd }, 3)
	require.NoError(t, l.Start())
	require.NoError(t, s.Register(in(1001, 1002, 1003), nil))
	for _, want := range [][]int32{{1001, 1002, 1003}, {1002, 1003, 1001}, {1003, 1001, 1002}, {1001, 1002, 1003}} {
		newest().fire(1001, 1002, 1003)
		for _, fd := range want {
			require.Equal(t, fd, await(t, calls))
		}
	}
}

// A socket beside any number of flooded ones waits for one call of each.
func TestEachFloodedSocketDelaysAnotherByOneCall(t *testing.T) {
	const floods = 5
	l := newLoop(t, Config{})
	var calls atomic.Int64
	flood := l.Define("flood", func(*Event) { calls.Add(1) }, floods)
	var before, after int64
	served := make(chan bool, 1)
	s := l.Define("a", func(ev *Event) { read(ev.Fd); after = calls.Load(); served <- true }, 1)
	entered, proceed := make(chan bool), make(chan bool)
	gate := l.Define("gate", func(ev *Event) { read(ev.Fd); before = calls.Load(); entered <- true; <-proceed }, 1)
	require.NoError(t, l.Start())
	for range floods {
		ours, peer := socketpair(t)
		send(t, peer, "never read")
		require.NoError(t, flood.Add(int(ours), unix.POLLIN, nil))
	}
	ours, peer := socketpair(t)
	g, gatePeer := socketpair(t)
	require.NoError(t, s.Register(in(ours), nil))
	require.NoError(t, gate.Register(in(g), nil))
	for range 100 {
		send(t, gatePeer, "x")
		await(t, entered)
		send(t, peer, "x") // ready now, while the loop stands still
		proceed <- true
		await(t, served)
		// The rest of the current round, and the next round.
		require.LessOrEqual(t, after-before, int64(2*floods))
	}
	for _, s := range []*Service{flood, s, gate} { // before their sockets are closed
		require.NoError(t, s.Unregister())
	}
}

func TestStatsCountCallsTimeAndErrors(t *testing.T) {
	l, newest := newFakeLoop(t, Config{})
	var clock atomic.Int64 // of the loop
	l.clock = func() time.Duration { return time.Duration(clock.Load()) }
	returned := make(chan bool)
	s := l.Define("a", func(ev *Event) {
		clock.Add(ev.UserData.(int64))
		returned <- true
		if ev.UserData.(int64) == 7 {
			panic("counted as an error")
		}
	}, 1)
	idle := l.Define("b", nothing, 1)
	l.cfg.Logger, _ = records()
	require.NoError(t, l.Start())
	for _, took := range []int64{5, 9, 7} {
		require.NoError(t, s.Register(in(1001), took))
		newest().fire(1001)
		await(t, returned)
	}
	require.NoError(t, s.Unregister()) // after the last call has been counted
	require.Equal(t, Stats{Calls: 3, Time: 21, MaxTime: 9, Errors: 1}, s.Stats())
	require.Zero(t, idle.Stats())
}

func TestAllShowsServicesInOrderWithTheirSockets(t *testing.T) {
	l := newLoop(t, Config{PollMax: 2000})
	var defined []*Service
	for i := range 600 { // several chunks of the table
		defined = append(defined, l.Define("s", nothing, 1+i%3))
	}
	require.NoError(t, l.Start())
	ours, _ := socketpair(t)
	require.NoError(t, defined[300].Register(in(ours), nil))
	var all []*Service
	for s := range l.All() {
		all = append(all, s)
		require.Regexp(t, `^socketservice/fairness_test\.go:\d+$`, s.Owner())
	}
	require.Equal(t, len(defined), len(all))
	for i, s := range all {
		require.Same(t, defined[i], s)
		require.Equal(t, 1+i%3, s.Slots())
		require.Len(t, s.Sockets(), btoi(i == 300))
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}
