package integration

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"guesthouse.example/harness/harnesstest"
)

func TestADeadlineDoesNotCountTheTimeInWhichQEMUIsFrozen(t *testing.T) {
	t.Parallel()
	harnesstest.EachTarget(t, func(t *testing.T, target string) {
		spec := echoSpec(t, target)
		pidfile := filepath.Join(t.TempDir(), "pid")
		spec.QEMUArgs = []string{"-pidfile", pidfile}
		m := harnesstest.Boot(t, spec)
		qemu := readPid(t, pidfile)
		require.NoError(t, unix.Kill(qemu, unix.SIGSTOP))
		defer unix.Kill(qemu, unix.SIGCONT) // does nothing to one that runs

		const d = 2 * time.Second
		ctx, cancel := m.Within(t.Context(), d)
		defer cancel()
		select {
		case <-ctx.Done():
			t.Fatalf("it ended while QEMU was frozen: %v", context.Cause(ctx))
		case <-time.After(2 * d):
		}
		require.NoError(t, unix.Kill(qemu, unix.SIGCONT))
		<-ctx.Done()
		require.ErrorContains(t, context.Cause(ctx), "not within 2s of the machine's time (")
		m.Shutdown()
	})
}
