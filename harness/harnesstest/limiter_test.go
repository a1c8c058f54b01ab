package harnesstest

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestTheLimiterAdmitsTestsByMemoryAndProcessors(t *testing.T) {
	var memory, idle atomic.Int64
	looked := make(chan struct{}, 1)
	l := newLimiter()
	l.processors = 2
	l.memory = func() (int64, bool) { return memory.Load(), true }
	l.idle = func() (float64, bool) {
		select {
		case looked <- struct{}{}:
		default:
		}
		return float64(idle.Load()), true
	}
	acquire := func() <-chan struct{} {
		admitted := make(chan struct{})
		go func() {
			l.acquire()
			close(admitted)
		}()
		return admitted
	}
	within := time.After(Within)
	await := func(c <-chan struct{}, although string) {
		t.Helper()
		select {
		case <-c:
		case <-within:
			t.Fatalf("the limiter does nothing although %s", although)
		}
	}
	requireHeldBack := func(admitted <-chan struct{}) {
		t.Helper()
		for range 3 { // after three measurements, at least one has admitted no test
			await(looked, "a test waits for an idle processor")
		}
		select {
		case <-admitted:
			t.Fatal("the limiter has admitted the test")
		default:
		}
	}

	// Without memory, the limiter admits one test at a time.
	await(acquire(), "no other test runs")
	idle.Store(1)
	second := acquire()
	requireHeldBack(second)
	l.release()
	await(second, "the other test was released")

	// With memory, it admits as many as there are processors, and more while one idles.
	idle.Store(0)
	memory.Store(memoryPerTest)
	await(acquire(), "a processor is free")
	fourth := acquire()
	requireHeldBack(fourth)
	idle.Store(1)
	await(fourth, "a processor idles")
	require.Equal(t, 3, l.tests)
}

func TestPrefetchedMachinesGiveWayToTests(t *testing.T) {
	free, reclaimed := int64(memoryPerTest), 0
	measure := func() (int64, bool) { return free, true }
	reclaim := func() {
		reclaimed++
		free += 100
	}
	got, ok := freeOrReclaim(measure, reclaim)
	require.True(t, ok)
	require.EqualValues(t, memoryPerTest, got)
	require.Zero(t, reclaimed, "there is memory for both")
	free--
	got, ok = freeOrReclaim(measure, reclaim)
	require.True(t, ok)
	require.EqualValues(t, memoryPerTest+99, got)
	require.Equal(t, 1, reclaimed)
}
