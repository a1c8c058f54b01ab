package vm

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"guesthouse.example/harness/internal/machinetime"
	"guesthouse.example/harness/internal/testconsole"
)

// QEMU waits for a processor in the middle of the trace.
func TestACompleteTraceIsCollectedOnABusyHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const busy = collectWithin - time.Second/2
		start := time.Now()
		line, printText := testconsole.New(t)
		v := &VM{
			Console: line,
			Clock: machinetime.NewFake(func() machinetime.Sample {
				if time.Since(start) < busy {
					return machinetime.Sample{Runnable: true} // the kernel counts the wait only when it is over
				}
				return machinetime.Sample{Waited: map[int]time.Duration{1: busy}}
			}),
		}
		printText("panic: no such sensor\n\ngoroutine 1 [running]:\n")
		time.AfterFunc(busy+settle/2, func() { printText("main.main()\n") })
		v.waitSilent(t.Context())
		require.Equal(t, "main.main()", v.Console.Tail(1)[0])
		require.InDelta(t, busy+settle*3/2, time.Since(start), float64(machinetime.Tick), "waitSilent returns after 200 ms of silence")
	})
}
