package contexts

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"guesthouse.example/harness"
	"guesthouse.example/harness/harnesstest"
)

// The test stops QEMU at each command of a save and cancels the save. However much of the command QEMU
// has carried out by then, the machine keeps running, and the next save does not use the result of the
// cancelled one.
func TestACancelledSaveLeavesTheMachineAsItWas(t *testing.T) {
	m := boot(t, echoSpec(t))
	qemu := m.Result().PID
	within, cancel := m.Within(t.Context(), 10*harnesstest.Within)
	defer cancel()
	commands := func(name string) int {
		log, err := os.ReadFile(filepath.Join(m.Dir(), "qmp.log"))
		require.NoError(t, err)
		return bytes.Count(log, fmt.Appendf(nil, `"execute":"%s"`, name))
	}
	for _, command := range []string{"stop", "migrate-set-capabilities", "getfd", "migrate"} {
		ctx, enough := context.WithCancelCause(within)
		before := commands(command)
		ended := make(chan error, 1)
		go func() {
			_, err := m.Save(ctx, filepath.Join(t.TempDir(), "template"))
			ended <- err
		}()
		for commands(command) == before {
			require.NoError(t, within.Err())
			time.Sleep(time.Millisecond)
		}
		require.NoError(t, unix.Kill(qemu, unix.SIGSTOP))
		enough(errEnough)
		select {
		case err := <-ended:
			if err != nil { // a fast QEMU may have completed the save
				require.ErrorIs(t, err, errEnough, command)
			}
			t.Logf("cancelled at %s: %v", command, err)
		case <-time.After(margin):
			t.Fatalf("Save does not end with its context after %s", command)
		}
		require.NoError(t, unix.Kill(qemu, unix.SIGCONT))
		_, err := m.Stats(within)
		require.NoError(t, err, "after %s", command)
		conn, err := m.Dial(within, "udp", 4242)
		require.NoError(t, err)
		echoes(t, conn)
		require.NoError(t, conn.Close())
	}
	template, err := m.Save(within, filepath.Join(t.TempDir(), "template"))
	require.NoError(t, err)
	spec := m.Spec()
	spec.From, spec.Dir = template, t.TempDir()
	again, err := harness.Boot(within, spec)
	require.NoError(t, err)
	defer again.Close()
	require.Equal(t, harness.BootRestored, again.Result().Boot, again.Result().Why)
	conn, err := again.Dial(within, "udp", 4242)
	require.NoError(t, err)
	defer conn.Close()
	echoes(t, conn)
}
