package integration

import (
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"guesthouse.example/harness"
	"guesthouse.example/harness/harnesstest"
)

// crashes boots a guest that crashes on request. It does not return a harnesstest.Machine, which would
// fail the test because of the crash.
func crashes(t *testing.T, target, guest string) *harness.Machine {
	t.Helper()
	spec := harnesstest.Spec(t, target, guest)
	spec.Ports = []string{"udp/4242"}
	spec.Dir = t.TempDir()
	var templates harness.TemplateCache
	m, err := harness.Boot(t.Context(), from(&templates, spec))
	require.NoError(t, err)
	t.Cleanup(func() { m.Close() })
	return m
}

const crashesGuest = "./guests/crashes"

// tell sends the guest a datagram.
func tell(t *testing.T, m *harness.Machine, text string) {
	t.Helper()
	conn, err := m.Dial(t.Context(), "udp", echoPort)
	require.NoError(t, err)
	defer conn.Close()
	_, err = io.WriteString(conn, text)
	require.NoError(t, err)
}

// consoleLog returns the console.log of the machine's record.
func consoleLog(t *testing.T, m *harness.Machine) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(m.Dir(), "console.log"))
	require.NoError(t, err)
	return string(text)
}

// panics tells the guest to panic. It requires the panic in the error that see returns, and the whole
// trace in the report and in the record.
func panics(t *testing.T, target string, see func(*harness.Machine) error) {
	t.Helper()
	m := crashes(t, target, crashesGuest)
	tell(t, m, "panic")
	err := see(m)
	require.ErrorIs(t, err, harness.ErrGuest)
	require.ErrorContains(t, err, "the guest failed: panic: no such sensor")
	m.Close()
	for where, text := range map[string]string{"report": m.Report().String(), "console.log": consoleLog(t, m)} {
		require.Regexp(t, `goroutine \d+ \[running\]:\n.*main\..*\n.*/guests/crashes/main\.go:\d+`, text, where)
		require.Contains(t, text, "init: /bin/uinit has ended: exit status 2", where)
	}
	require.Equal(t, harness.StateFailed, m.Result().State)
	require.Equal(t, "the guest failed: panic: no such sensor", m.Result().Error)
}

// The call that sees the crash ends the machine. The record still has the whole trace.
func TestEveryCallReportsAPanicWithItsWholeTrace(t *testing.T) {
	t.Parallel()
	target := oneTarget(t)
	for name, see := range map[string]func(*testing.T, *harness.Machine) error{
		"Expect": func(t *testing.T, m *harness.Machine) error {
			_, err := m.Console().Expect(t.Context(), "never said")
			return err
		},
		"Event": func(t *testing.T, m *harness.Machine) error {
			_, err := m.Event(t.Context())
			return err
		},
		"Stats": func(t *testing.T, m *harness.Machine) (err error) {
			for err == nil {
				_, err = m.Stats(t.Context())
			}
			return err
		},
		"Dial": func(t *testing.T, m *harness.Machine) (err error) {
			for err == nil {
				var conn io.Closer
				if conn, err = m.Dial(t.Context(), "udp", echoPort); err == nil {
					conn.Close()
				}
			}
			return err
		},
		"Wait": func(t *testing.T, m *harness.Machine) error { return m.Wait(t.Context()) },
		"Close": func(t *testing.T, m *harness.Machine) error {
			for m.Console().Crash() == "" {
				require.NoError(t, t.Context().Err())
			}
			m.Close()
			return m.Wait(t.Context())
		},
	} {
		t.Run(name, func(t *testing.T) {
			panics(t, target, func(m *harness.Machine) error { return see(t, m) })
		})
	}
}

// lastOfPanic is the last line that each kernel prints when sysrq makes it panic. The kernel restarts
// right after it, as its command line requires.
var lastOfPanic = map[string]string{
	"x86":    "Kernel Offset: disabled",
	"x86_64": "Kernel Offset: disabled",
	"arm":    "panic from sysrq", // the unwinder gets no further
	"arm64":  "Memory Limit: none",
}

func TestAKernelPanicIsReportedToItsLastLine(t *testing.T) {
	t.Parallel()
	harnesstest.EachTarget(t, func(t *testing.T, target string) {
		m := crashes(t, target, echoGuest)
		require.NoError(t, m.Console().Send(t.Context(), "sh echo c > /proc/sysrq-trigger"))
		_, err := m.Console().Expect(t.Context(), "never said")
		require.ErrorIs(t, err, harness.ErrGuest)
		m.Close()
		for where, text := range map[string]string{"report": m.Report().String(), "console.log": consoleLog(t, m)} {
			require.Contains(t, text, "Kernel panic - not syncing: sysrq triggered crash", where)
			require.Contains(t, text, lastOfPanic[target], where)
		}
	})
}

func TestEveryKindOfCrashIsDetected(t *testing.T) {
	t.Parallel()
	target := oneTarget(t)
	for way, says := range map[string]string{
		"panic after an unfinished line": "panic: no such sensor",
		"panic of many lines":            "panic: no such sensor",
		"coloured panic":                 "panic: no such sensor",
		"nil pointer":                    "panic: runtime error: invalid memory address or nil pointer dereference",
		"fatal error":                    "fatal error: sync: unlock of unlocked mutex",
		"all memory":                     "Out of memory: Killed process",
	} {
		t.Run(way, func(t *testing.T) {
			m := crashes(t, target, crashesGuest)
			tell(t, m, way)
			ctx, cancel := m.Within(t.Context(), harnesstest.Within)
			defer cancel()
			_, err := m.Console().Expect(ctx, "never said")
			require.ErrorIs(t, err, harness.ErrGuest)
			require.ErrorContains(t, err, says)
		})
	}
}

// A client of the guest may make the guest log any text.
func TestALoggedTextIsNotACrash(t *testing.T) {
	t.Parallel()
	target := oneTarget(t)
	m := crashes(t, target, crashesGuest)
	for _, text := range []string{
		"Kernel panic - not syncing: haha",
		"[    1.203456] Kernel panic - not syncing: haha\n[    1.203456] CPU: 0",
		"\n[    1.203456] Kernel panic - not syncing: haha\n[    1.203456] CPU: 0\n",
		"panic: haha\n\ngoroutine 1 [running]:\nmain.main()\n",
		"\x1b[2K\rpanic: haha\r\n\r\ngoroutine 1 [running]:\r\nmain.main()\r\n",
		">>> ZEPHYR FATAL ERROR 0: CPU exception on CPU 0",
		"WARNING: DATA RACE",
	} {
		tell(t, m, text)
		ctx, cancel := m.Within(t.Context(), harnesstest.Within)
		_, err := m.Console().Expect(ctx, `again="?`)
		cancel()
		require.NoError(t, err)
	}
	require.Empty(t, m.Console().Crash())
	require.Empty(t, m.Console().Warnings())
}

func TestAWarningIsKeptAndDoesNotEndTheMachine(t *testing.T) {
	t.Parallel()
	target := oneTarget(t)
	m := crashes(t, target, crashesGuest)
	tell(t, m, "report of a data race")
	ctx, cancel := m.Within(t.Context(), harnesstest.Within)
	defer cancel()
	_, err := m.Console().Expect(ctx, "the guest goes on")
	require.NoError(t, err)
	require.Empty(t, m.Console().Crash())
	require.Contains(t, m.Report().String(), "its warnings:\n\tWARNING: DATA RACE")
	require.NoError(t, m.Shutdown(ctx))
	var result harness.Result
	text, err := os.ReadFile(filepath.Join(m.Dir(), "result.json"))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, &result))
	require.Equal(t, []string{"WARNING: DATA RACE"}, result.Warnings)
	require.Equal(t, harness.StateEnded, result.State)
}

// A Spec with other patterns still uses the same template or prefetched machine.
func TestAUsersCrashPatternWorksInEveryBootMode(t *testing.T) {
	t.Parallel()
	target := oneTarget(t)
	spec := harnesstest.Spec(t, target, crashesGuest)
	spec.Accel = harness.TCG // which templates require
	spec.Ports = []string{"udp/4242"}
	plain := ownCache(t, spec)
	prefetching := &harness.TemplateCache{Dir: plain.Dir, Prefetch: true}
	t.Cleanup(prefetching.Close)
	for _, c := range []struct {
		templates *harness.TemplateCache
		crash     string
		boot      harness.BootMode
	}{
		{plain, "", withoutTemplate(spec)},
		{plain, `.*<inf> guesthouse: a client says it is over`, "restored"},
		{prefetching, `.*<inf> guesthouse: .*so over`, "restored"},
		{prefetching, `\[\S+\] <inf> guesthouse: a client says it is over`, "prefetched"}, // if the host has memory
	} {
		if c.crash != "" {
			spec.Crashes = []string{c.crash}
		}
		m, err := harness.Boot(t.Context(), from(c.templates, spec))
		require.NoError(t, err)
		t.Cleanup(func() { m.Close() })
		if c.boot == "prefetched" {
			t.Logf("it was %s", m.Result().Boot)
		} else {
			require.Equal(t, c.boot, m.Result().Boot, m.Result().Why)
		}
		tell(t, m, "it is over, so over")
		ctx, cancel := m.Within(t.Context(), harnesstest.Within)
		defer cancel()
		if c.crash == "" {
			_, err = m.Console().Expect(ctx, `again=`)
			require.NoError(t, err)
			require.Empty(t, m.Console().Crash())
		} else {
			_, err = m.Console().Expect(ctx, `never said`)
			require.ErrorIs(t, err, harness.ErrGuest)
			require.Contains(t, m.Console().Crash(), "it is over, so over")
		}
		require.NoError(t, m.Close())
		_, err = c.templates.Waiting(t.Context())
		require.NoError(t, err)
	}
}

func TestTheReportOfADeepTraceHasItsBeginningAndItsEnd(t *testing.T) {
	t.Parallel()
	target := oneTarget(t)
	m := crashes(t, target, crashesGuest)
	tell(t, m, "panic with a deep stack")
	_, err := m.Console().Expect(t.Context(), "never said")
	require.ErrorContains(t, err, "panic: no such sensor")
	report := m.Report()
	text := strings.Join(report.Console, "\n")
	require.LessOrEqual(t, len(report.Console), 12+50+10+1, "before the crash, from it on, at the end, and the count of the lines between")
	require.Regexp(t, `panic: no such sensor\n\ngoroutine \d+ \[running\]:\nmain\.deep\(`, text)
	require.Regexp(t, `\[\d+ lines left out\]`, text)
	require.Contains(t, text, "exit status 2")
	// Go itself leaves out 2 of the 101 frames in the middle.
	require.GreaterOrEqual(t, strings.Count(consoleLog(t, m), "main.deep("), 98)
}
