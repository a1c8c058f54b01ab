package harness

import (
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// QEMU waits 3 s for a processor in the middle of the trace, longer than all of it may take.
func TestATraceIsCollectedWholeOnABusyHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const busy = 3 * time.Second
		start := time.Now()
		m := &Machine{
			console: newConsole(io.Discard, io.Discard),
			ended:   make(chan struct{}),
			clock: &clock{
				wall: func() time.Duration { return time.Since(start) },
				look: func() (sample, bool) { return sample{waited: waits{1: min(time.Since(start), busy)}}, true },
			},
		}
		m.console.append([]byte("panic: no such sensor\n\ngoroutine 1 [running]:\n"))
		time.AfterFunc(busy+settle/2, func() { m.console.append([]byte("main.main()\n")) })
		m.collect()
		require.Equal(t, "main.main()", m.console.Tail(1)[0])
		require.InDelta(t, busy+settle*3/2, time.Since(start), float64(clockTick), "then it is silent for a while")
	})
}

func TestWhoWaitsForItsTurnToBeRestoredCanGiveUp(t *testing.T) {
	for range cap(restoring) {
		restoring <- struct{}{}
		defer func() { <-restoring }()
	}
	p, err := minimal(t).check()
	require.NoError(t, err)
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("changed their mind")
	time.AfterFunc(10*time.Millisecond, func() { cancel(why) })
	_, err = p.launch(ctx, "qemu", &Template{}, "")
	require.ErrorIs(t, err, why)
	require.ErrorContains(t, err, "boot x86_64: ")
}
