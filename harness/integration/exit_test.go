package integration

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"guesthouse.example/harness"
	"guesthouse.example/harness/harnesstest"
)

// endings maps the commands of the guest "ends" to how its program then ends.
var endings = map[string]harness.Exit{
	"exit 0": {},
	"return": {},
	"exit 3": {Status: 3},
	"panic":  {Status: 2},
	"exec":   {Status: 7}, // of the program that it has executed
	"daemon": {},          // the parent's
	"kill":   {Status: -1, Signal: syscall.SIGKILL},
	"term":   {Status: -1, Signal: syscall.SIGTERM},
	"segv":   {Status: 2}, // Go's runtime exits without the header of a trace
	"lie":    {Status: 3},
}

// withoutAgent returns the Spec of a machine whose kernel has no driver for the agent's port. The guest is
// part of its initramfs, because no agent could take a program.
func withoutAgent(t *testing.T, target, guest string) harness.Spec {
	spec := harnesstest.BuiltInSpec(t, target, guest)
	spec.Cmdline = []string{"module_blacklist=virtio_console"}
	spec.From = &harness.TemplateCache{AnyGuest: true}
	return spec
}

func TestTheEndOfTheGuestsProgramIsReported(t *testing.T) {
	t.Parallel()
	target := oneTarget(t)
	byAgent := harnesstest.Spec(t, target, "./guests/ends")
	for name, spec := range map[string]harness.Spec{"by the agent": byAgent, "on the console": withoutAgent(t, target, "./guests/ends")} {
		t.Run(name, func(t *testing.T) {
			cache := &harness.TemplateCache{AnyGuest: true}
			for told, exit := range endings {
				err := ends(t, cache, spec, told, exit)
				switch {
				case told == "panic" && errors.As(err, new(*harness.ExitError)):
					require.Equal(t, "the guest failed: its program has ended: exit status 2", err.Error())
				case told == "panic": // the crash was seen on the console
					require.ErrorContains(t, err, "panic: x")
				case told == "segv":
					require.ErrorIs(t, err, harness.ErrGuest)
				case exit.OK():
					require.NoError(t, err, told)
				default:
					require.EqualError(t, err, "the guest failed: its program has ended: "+exit.String())
					require.ErrorIs(t, err, harness.ErrGuest)
				}
			}
		})
	}
}

// ends boots the guest "ends", makes it end and returns the error of Wait.
func ends(t *testing.T, cache *harness.TemplateCache, spec harness.Spec, told string, exit harness.Exit) error {
	t.Helper()
	m, err := harness.Boot(t.Context(), from(cache, spec))
	require.NoError(t, err, told)
	defer m.Close()
	ctx, cancel := m.Within(t.Context(), harnesstest.Within)
	defer cancel()
	require.NoError(t, m.Console().Send(ctx, told))
	err = m.Wait(ctx) // it returns as soon as it sees a crash
	require.Eventually(t, func() bool { return m.Result().Exit != nil }, 4*harnesstest.Within, 10*time.Millisecond, told)
	require.Equal(t, exit, *m.Result().Exit, told)
	if crash := m.Console().Crash(); crash == "" && exit.Signal == 0 {
		require.NoError(t, m.WaitExit(ctx, exit.Status), "an expected exit status is no failure")
		require.Equal(t, harness.StateEnded, m.Result().State)
		require.ErrorContains(t, m.WaitExit(ctx, 42), "exit status 42 was expected")
	}
	return err
}

func TestTheExitStatusIsReportedInEveryBootMode(t *testing.T) {
	t.Parallel()
	target := oneTarget(t)
	spec := harnesstest.Spec(t, target, "./guests/ends")
	inEveryBootMode(t, spec, func(m *harness.Machine) {
		ctx, cancel := m.Within(t.Context(), harnesstest.Within)
		defer cancel()
		require.NoError(t, m.Console().Send(ctx, "exit 3"))
		require.EqualError(t, m.Wait(ctx), "the guest failed: its program has ended: exit status 3")
	})
}

func TestABootErrorHasTheExitStatus(t *testing.T) {
	t.Parallel()
	target := oneTarget(t)
	byAgent := from(new(harness.TemplateCache), harnesstest.Spec(t, target, "./guests/ends"))
	for _, spec := range []harness.Spec{byAgent, withoutAgent(t, target, "./guests/ends")} {
		spec.Args = []string{"now"}
		err := boot(t, spec)
		require.ErrorIs(t, err, harness.ErrGuest)
		require.ErrorContains(t, err, `its console has not shown "guesthouse: ready$": the guest failed: its program has ended: exit status 3`)
		var exit *harness.ExitError
		require.ErrorAs(t, err, &exit)
		require.Equal(t, 3, exit.Code())
	}
}

func TestShutdownTerminatesAProgramWithoutPackageGuest(t *testing.T) {
	t.Parallel()
	target := oneTarget(t)
	spec := harnesstest.Spec(t, target, "./guests/ends")
	m := harnesstest.Boot(t, spec)
	m.Shutdown()
	require.Equal(t, &harness.Exit{Status: -1, Signal: syscall.SIGTERM}, m.Result().Exit)
	require.Equal(t, "the harness asked for it", m.Result().PowerOff)

	m = harnesstest.Boot(t, spec)
	m.Send("deaf")
	m.Expect("deaf now")
	m.Shutdown()
	require.Equal(t, syscall.SIGKILL, m.Result().Exit.Signal)
}

// After Ctrl-S the terminal holds back all output, including init's.
func TestAStoppedConsoleDoesNotHideTheEnd(t *testing.T) {
	t.Parallel()
	target := oneTarget(t)
	m, err := harness.Boot(t.Context(), from(new(harness.TemplateCache), echoSpec(t, target)))
	require.NoError(t, err)
	defer m.Close()
	ctx, cancel := m.Within(t.Context(), harnesstest.Within)
	defer cancel()
	require.NoError(t, m.Console().Send(ctx, "sh echo $((1 + 1)) begun; sleep 1; kill -9 $PPID"))
	_, err = m.Console().Expect(ctx, `2 begun`)
	require.NoError(t, err)
	require.NoError(t, m.Console().Type(ctx, []byte{0x13})) // Ctrl-S
	var exit *harness.ExitError
	require.ErrorAs(t, m.Wait(ctx), &exit)
	require.Equal(t, syscall.SIGKILL, exit.Signal)
	require.Contains(t, m.Console().Text(), "init: /bin/uinit has ended: signal 9 (killed)")
}

func TestAnEndByTheOOMKillerIsReported(t *testing.T) {
	t.Parallel()
	target := oneTarget(t)
	spec := harnesstest.Spec(t, target, "./guests/ends")
	spec.Dir = t.TempDir()
	m, err := harness.Boot(t.Context(), from(new(harness.TemplateCache), spec))
	require.NoError(t, err)
	defer m.Close()
	require.NoError(t, m.Console().Send(t.Context(), "eat"))
	ctx, cancel := m.Within(t.Context(), 2*harnesstest.Within)
	defer cancel()
	require.ErrorIs(t, m.Wait(ctx), harness.ErrGuest, "Wait returns when the console shows the kernel's report")
	require.Eventually(t, func() bool { return m.Result().Exit != nil }, 4*harnesstest.Within, 50*time.Millisecond)
	exit := m.Result().Exit
	require.Equal(t, syscall.SIGKILL, exit.Signal)
	require.Regexp(t, `^Out of memory: Killed process \d+ \(uinit\)`, exit.Why)
	text, err := os.ReadFile(filepath.Join(spec.Dir, "agent.log"))
	require.NoError(t, err)
	require.Contains(t, string(text), "guest: ended: signal 9 (killed)")
}
