package harnesstest

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestTheGate(t *testing.T) {
	var memory, idle atomic.Int64
	looked := make(chan struct{}, 1)
	g := newGate()
	g.processors = 2
	g.memory = func() (int64, bool) { return memory.Load(), true }
	g.idle = func() (float64, bool) {
		select {
		case looked <- struct{}{}:
		default:
		}
		return float64(idle.Load()), true
	}
	enters := func() <-chan struct{} {
		in := make(chan struct{})
		go func() {
			g.enter()
			close(in)
		}()
		return in
	}
	within := time.After(Within)
	await := func(c <-chan struct{}, what string) {
		t.Helper()
		select {
		case <-c:
		case <-within:
			t.Fatal(what)
		}
	}
	waits := func(in <-chan struct{}) {
		t.Helper()
		for range 3 { // of three looks one has ended without effect
			await(looked, "it looks whether a processor idles")
		}
		select {
		case <-in:
			t.Fatal("it went in")
		default:
		}
	}

	// Without memory one goes in, and the next one when it has gone.
	await(enters(), "nobody else is there")
	idle.Store(1)
	second := enters()
	waits(second)
	g.leave()
	await(second, "the other has gone")

	// With memory as many as there are processors, and more where one idles.
	idle.Store(0)
	memory.Store(memoryEach)
	await(enters(), "there is a processor for it")
	fourth := enters()
	waits(fourth)
	idle.Store(1)
	await(fourth, "a processor idles")
	require.Equal(t, 3, g.inside)
}

func TestMachinesThatWaitGiveWayToTests(t *testing.T) {
	free, ended := int64(memoryEach), 0
	look := func() (int64, bool) { return free, true }
	end := func() {
		ended++
		free += 100
	}
	got, ok := spare(look, end)
	require.True(t, ok)
	require.EqualValues(t, memoryEach, got)
	require.Zero(t, ended, "there is memory for both")
	free--
	got, ok = spare(look, end)
	require.True(t, ok)
	require.EqualValues(t, memoryEach+99, got)
	require.Equal(t, 1, ended)
}
