package harness

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// QEMU waits for a processor in the middle of the trace.
func TestATraceIsCollectedWholeOnABusyHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const busy = collectWithin - time.Second/2
		start := time.Now()
		line, says := testConsole(t)
		m := &Machine{
			console: line,
			ended:   make(chan struct{}),
			clock: &clock{
				wall: func() time.Duration { return time.Since(start) },
				look: func() (sample, bool) {
					if time.Since(start) < busy {
						return sample{waited: waits{1: 0}, runs: true}, true // what goes on is not yet told
					}
					return sample{waited: waits{1: busy}}, true
				},
			},
		}
		says("panic: no such sensor\n\ngoroutine 1 [running]:\n")
		time.AfterFunc(busy+settle/2, func() { says("main.main()\n") })
		m.untilSilent(t.Context())
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
	_, err = p.launch(ctx, &Template{}, "")
	require.ErrorIs(t, err, why)
	require.ErrorContains(t, err, "boot x86_64: ")
}
