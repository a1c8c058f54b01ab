package limiter

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestTheLimiterAdmitsJobsByMemoryAndProcessors(t *testing.T) {
	var memory, idle atomic.Int64
	looked := make(chan struct{}, 1)
	l := New(nil)
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
			l.Acquire(context.Background())
			close(admitted)
		}()
		return admitted
	}
	within := time.After(30 * time.Second)
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
		for range 3 { // after three measurements, at least one has admitted no job
			await(looked, "a job waits for an idle processor")
		}
		select {
		case <-admitted:
			t.Fatal("the limiter has admitted the job")
		default:
		}
	}

	// Without memory, the limiter admits one job at a time.
	await(acquire(), "no other job runs")
	idle.Store(1)
	second := acquire()
	requireHeldBack(second)
	l.Release()
	await(second, "the other job was released")

	// With memory, it admits as many as there are processors, and more while one idles.
	idle.Store(0)
	memory.Store(memoryPerJob)
	await(acquire(), "a processor is free")
	fourth := acquire()
	requireHeldBack(fourth)
	idle.Store(1)
	await(fourth, "a processor idles")
	require.Equal(t, 3, l.jobs)
}

func TestPrefetchedMachinesGiveWayToJobs(t *testing.T) {
	free, reclaimed := int64(memoryPerJob), 0
	measure := func() (int64, bool) { return free, true }
	reclaim := func() {
		reclaimed++
		free += 100
	}
	got, ok := freeOrReclaim(measure, reclaim)
	require.True(t, ok)
	require.EqualValues(t, memoryPerJob, got)
	require.Zero(t, reclaimed, "there is memory for both")
	free--
	got, ok = freeOrReclaim(measure, reclaim)
	require.True(t, ok)
	require.EqualValues(t, memoryPerJob+99, got)
	require.Equal(t, 1, reclaimed)
}

func TestAJobStopsWaitingWhenItsContextEnds(t *testing.T) {
	l := New(nil)
	l.processors = 1
	l.memory = func() (int64, bool) { return 0, true }
	l.idle = func() (float64, bool) { return 0, true }
	require.NoError(t, l.Acquire(t.Context()))
	ctx, cancel := context.WithCancelCause(t.Context())
	over := errors.New("over")
	cancel(over)
	require.ErrorIs(t, l.Acquire(ctx), over)
	require.Equal(t, 1, l.jobs)
	l.Release()
	require.NoError(t, l.Acquire(t.Context()), "the job that gave up holds nothing")
}
