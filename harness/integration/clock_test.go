package integration

import (
	"context"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"guesthouse.example/harness/harnesstest"
	"guesthouse.example/internal/target"
)

// A kernel that calibrates its clock by itself may get it wrong on a busy host. Its clocks then run up
// to forty times too fast.
func TestTheKernelIsToldTheRateOfItsClock(t *testing.T) {
	t.Parallel()
	if runtime.GOARCH != "amd64" {
		t.Skip("the host's processor has no TSC that an emulated one could be")
	}
	harnesstest.EachTarget(t, func(t *testing.T, name string) {
		tg, err := target.Lookup(name)
		require.NoError(t, err)
		m := harnesstest.Boot(t, echoSpec(t, name))
		if tg.ClockRate == "" {
			// The kernel reads the rate of QEMU's counter from a register.
			require.Regexp(t, `arch_timer: cp15 timer\(s\) running at 62\.50MHz`, m.Output("dmesg"))
			return
		}
		m.Send("sh dmesg | grep tsc: && echo that is 'all'")
		// If a kernel still calibrates its clock, it prints the measured rate before the rate that it uses.
		log := m.Expect(`(?s).*tsc: Detected (\d+\.\d+) MHz.*that is all$`)
		require.Regexp(t, `^\d+\.000$`, log[1], "no kernel would measure whole MHz")
		m.Shutdown()
	})
}

func TestADeadlineDoesNotCountTheTimeWhileQEMUIsStopped(t *testing.T) {
	t.Parallel()
	target := oneTarget(t)
	spec := echoSpec(t, target)
	m := harnesstest.Boot(t, spec)
	qemu := m.Result().PID
	require.NoError(t, unix.Kill(qemu, unix.SIGSTOP))
	defer unix.Kill(qemu, unix.SIGCONT) // harmless if QEMU runs

	const d = 2 * time.Second
	ctx, cancel := m.Machine.Within(t.Context(), d)
	defer cancel()
	select {
	case <-ctx.Done():
		t.Fatalf("the deadline passed while QEMU was stopped: %v", context.Cause(ctx))
	case <-time.After(2 * d):
	}
	require.NoError(t, unix.Kill(qemu, unix.SIGCONT))
	<-ctx.Done()
	require.ErrorContains(t, context.Cause(ctx), "not within 2s of the machine's time (")
	m.Shutdown()
}
