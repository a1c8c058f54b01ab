package harness

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"guesthouse.example/harness/internal/machinetime"
	"guesthouse.example/harness/internal/template"
)

// QEMU waits for a processor in the middle of the trace.
func TestATraceIsCollectedWholeOnABusyHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const busy = collectWithin - time.Second/2
		start := time.Now()
		line, says := testConsole(t)
		v := &vm{
			console: line,
			clock: machinetime.NewFake(func() machinetime.Sample {
				if time.Since(start) < busy {
					return machinetime.Sample{Runnable: true} // the kernel does not yet tell how long it has waited
				}
				return machinetime.Sample{Waited: map[int]time.Duration{1: busy}}
			}),
		}
		says("panic: no such sensor\n\ngoroutine 1 [running]:\n")
		time.AfterFunc(busy+settle/2, func() { says("main.main()\n") })
		v.untilSilent(t.Context())
		require.Equal(t, "main.main()", v.console.Tail(1)[0])
		require.InDelta(t, busy+settle*3/2, time.Since(start), float64(machinetime.Tick), "then it is silent for a while")
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
	_, err = p.launch(ctx, &template.Template{}, "")
	require.ErrorIs(t, err, why)
	require.ErrorContains(t, err, "boot x86_64: ")
}
