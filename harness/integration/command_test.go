package integration

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"guesthouse.example/harness"
	"guesthouse.example/harness/harnesstest"
)

func TestACommandsOutputAndStatusStayOffTheConsole(t *testing.T) {
	t.Parallel()
	eachWordSize(t, func(t *testing.T, target string) {
		m := harnesstest.Boot(t, echoSpec(t, target))
		before := m.Console().Text()
		require.Equal(t, "all-good\n", m.Output("echo", "all-good"))
		require.Equal(t, "one  two|\n", m.Output("echo", "one  two|"), "no shell splits the arguments")

		ctx, cancel := m.Machine.Within(t.Context(), 2*harnesstest.Within)
		defer cancel()
		out, err := m.Machine.Command(ctx, "sh", "-c", "echo to out; echo to err >&2; exit 3").Output()
		require.Equal(t, "to out\n", string(out))
		var failed *harness.CommandError
		require.ErrorAs(t, err, &failed)
		require.ErrorIs(t, err, harness.ErrGuest)
		require.Equal(t, harness.Exit{Status: 3}, failed.Exit)
		require.Equal(t, "to err\n", string(failed.Stderr))
		require.EqualError(t, err, `the guest failed: the command "sh -c echo to out; echo to err >&2; exit 3" has ended: exit status 3: to err`)

		require.ErrorAs(t, m.Machine.Command(ctx, "sh", "-c", "kill -9 $$").Run(), &failed)
		require.Equal(t, syscall.SIGKILL, failed.Signal)

		out, err = m.Machine.Command(ctx, "cat", "/bbin/bb").Output() // binary data of some megabytes
		require.NoError(t, err)
		require.True(t, bytes.HasPrefix(out, []byte("\x7fELF")))
		require.Greater(t, len(out), 1<<20)
		require.Equal(t, before, m.Console().Text())
	})
}

func TestCommandsRunConcurrently(t *testing.T) {
	t.Parallel()
	target := oneTarget(t)
	m := harnesstest.Boot(t, echoSpec(t, target))
	ctx, cancel := m.Machine.Within(t.Context(), 3*harnesstest.Within)
	defer cancel()
	var all sync.WaitGroup
	for i := range 16 {
		all.Go(func() {
			out, err := m.Machine.Command(ctx, "sh", "-c", fmt.Sprintf("echo %d; sleep 1; echo %d; exit %d", i, i, i%2)).Output()
			if i%2 == 0 && err != nil || i%2 == 1 && !errors.As(err, new(*harness.CommandError)) {
				t.Errorf("command %d: %v", i, err)
			}
			if want := fmt.Sprintf("%d\n%d\n", i, i); string(out) != want {
				t.Errorf("command %d: %q", i, out)
			}
		})
	}
	all.Wait()
	echoes(t, m.Dial("udp", echoPort), "the guest goes on")
}

// listProcesses prints the command lines of all processes. Some of them end meanwhile.
const listProcesses = "cat /proc/[0-9]*/cmdline 2>/dev/null; true"

func TestACancelledCommandIsKilledWithItsChildren(t *testing.T) {
	t.Parallel()
	target := oneTarget(t)
	m := harnesstest.Boot(t, echoSpec(t, target))
	ctx, cancel := context.WithCancelCause(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- m.Machine.Command(ctx, "sh", "-c", "gosh -c 'echo > /started; sleep 4321' & wait").Run()
	}()
	m.Output("sh", "-c", "while ! test -e /started; do sleep 0.1; done")
	gone := errors.New("changed my mind")
	cancel(gone)
	require.ErrorIs(t, <-ended, gone)
	require.NotContains(t, m.Output("sh", "-c", listProcesses), "4321")
}

func TestADaemonOutlivesItsCommand(t *testing.T) {
	t.Parallel()
	target := oneTarget(t)
	m := harnesstest.Boot(t, harnesstest.Spec(t, target, "./guests/ends"))
	require.Contains(t, m.Output("/bin/uinit", "leave"), "begun\n")
	require.Contains(t, m.Output("sh", "-c", listProcesses), "daemon")
}

func TestACommandRunsBeforeTheGuestIsReadyAndFailsAfterItsEnd(t *testing.T) {
	t.Parallel()
	target := oneTarget(t)
	m, err := harness.Start(t.Context(), failing(t, target, "hangs"))
	require.NoError(t, err)
	defer m.Close()
	ctx, cancel := m.Within(t.Context(), 4*harnesstest.Within)
	defer cancel()
	_, err = m.Console().Expect(ctx, "waiting for what never comes")
	require.NoError(t, err)
	out, err := m.Command(ctx, "uname").Output()
	require.NoError(t, err)
	require.Equal(t, "Linux\n", string(out))

	err = m.Command(ctx, "sh", "-c", "echo b > /proc/sysrq-trigger; sleep 1000").Run()
	require.ErrorContains(t, err, "the line has ended")
	require.ErrorIs(t, err, harness.ErrGuest)
	require.ErrorContains(t, err, "it restarted instead of powering off")
	require.ErrorContains(t, err, "waiting for what never comes", "the console's last lines")
	require.Error(t, m.Command(ctx, "uname").Run())
}

func TestTheErrorOfACommandShowsTheCrashOfItsGuest(t *testing.T) {
	t.Parallel()
	m, err := harness.Boot(t.Context(), from(new(harness.TemplateCache), echoSpec(t, oneTarget(t))))
	require.NoError(t, err)
	defer m.Close()
	ctx, cancel := m.Within(t.Context(), 4*harnesstest.Within)
	defer cancel()
	err = m.Command(ctx, "sh", "-c", "echo c > /proc/sysrq-trigger; sleep 1000").Run()
	require.ErrorIs(t, err, harness.ErrGuest)
	require.ErrorContains(t, err, "sysrq triggered crash")
	require.ErrorContains(t, err, "sysrq: Trigger a crash", "the console's last lines")
	require.ErrorContains(t, err, m.Dir(), "the record")
	require.NotErrorIs(t, err, context.DeadlineExceeded)
	require.False(t, errors.As(err, new(*harness.CommandError)))
}

func TestAMachineIsNotSavedWhileACommandRuns(t *testing.T) {
	t.Parallel()
	target := oneTarget(t)
	m := harnesstest.Boot(t, savable(echoSpec(t, target)))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- m.Machine.Command(ctx, "sh", "-c", "echo > /started; sleep 1000").Run() }()
	m.Output("sh", "-c", "while ! test -e /started; do sleep 0.1; done")
	dir := filepath.Join(t.TempDir(), "template")
	_, err := m.Machine.Save(t.Context(), dir)
	require.ErrorContains(t, err, "1 of the guest's commands still run: wait for their end")
	cancel()
	require.ErrorIs(t, <-ended, context.Canceled)
	m.Save(dir)
}

func TestACommandNeedsAnAgent(t *testing.T) {
	t.Parallel()
	target := oneTarget(t)
	spec := withoutAgent(t, target, "./guests/ends")
	m := harnesstest.Boot(t, spec)
	require.EqualError(t, m.Machine.Command(t.Context(), "uname", "-m").Run(),
		`command "uname -m" in `+target+`: the guest has no agent: it has not opened the port guesthouse.agent`)
}
