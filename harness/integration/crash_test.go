package integration

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"guesthouse.example/harness"
	"guesthouse.example/harness/harnesstest"
)

// crashes is a machine with the guest that crashes as it is told to. It is no
// harnesstest.Machine, which would fail the test for that.
func crashes(t *testing.T, target, guest string) *harness.Machine {
	t.Helper()
	spec := harnesstest.Spec(t, target, guest)
	spec.Ports = []string{"udp/4242"}
	spec.Dir = t.TempDir()
	var templates harness.TemplateCache
	m, err := templates.Boot(t.Context(), spec)
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

// consoleLog is that of the machine's record.
func consoleLog(t *testing.T, m *harness.Machine) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(m.Dir(), "console.log"))
	require.NoError(t, err)
	return string(text)
}

// Whoever sees the crash first ends the machine then; what the guest says of it is whole all
// the same, in the message and in the record.
func TestThePanicOfAGuestIsToldToItsEnd(t *testing.T) {
	t.Parallel()
	sees := []struct {
		who string
		see func(*testing.T, *harness.Machine) error
	}{
		{"Expect", func(t *testing.T, m *harness.Machine) error {
			_, err := m.Console().Expect(t.Context(), "never said")
			return err
		}},
		{"Event", func(t *testing.T, m *harness.Machine) error {
			_, err := m.Event(t.Context())
			return err
		}},
		{"Stats", func(t *testing.T, m *harness.Machine) (err error) {
			for err == nil {
				_, err = m.Stats(t.Context())
			}
			return err
		}},
		{"Dial", func(t *testing.T, m *harness.Machine) (err error) {
			for err == nil {
				var conn io.Closer
				if conn, err = m.Dial(t.Context(), "udp", echoPort); err == nil {
					conn.Close()
				}
			}
			return err
		}},
		{"Wait", func(t *testing.T, m *harness.Machine) error { return m.Wait(t.Context()) }},
		{"Close", func(t *testing.T, m *harness.Machine) error {
			for m.Console().Crash() == "" {
				require.NoError(t, t.Context().Err())
			}
			m.Close()
			return m.Wait(t.Context())
		}},
	}
	harnesstest.EachTarget(t, func(t *testing.T, target string) {
		for _, c := range sees {
			t.Run(c.who, func(t *testing.T) {
				m := crashes(t, target, crashesGuest)
				tell(t, m, "panic")
				err := c.see(t, m)
				require.ErrorIs(t, err, harness.ErrGuest)
				require.ErrorContains(t, err, "the guest failed: panic: no such sensor")
				m.Close()
				for where, text := range map[string]string{"report": m.Report().String(), "console.log": consoleLog(t, m)} {
					require.Regexp(t, `goroutine \d+ \[running\]:\n.*main\..*\n.*/guests/crashes/main\.go:\d+`, text, where)
					require.Contains(t, text, "init: /bin/uinit has ended: exit status 2", where)
				}
				require.Equal(t, "failed", m.Result().State)
				require.Equal(t, "the guest failed: panic: no such sensor", m.Result().Error)
			})
		}
	})
}

// lastOfPanic is what the kernels say last when sysrq makes them panic. After it they restart
// at once, as their command line tells them to.
var lastOfPanic = map[string]string{
	"x86":    "Kernel Offset: disabled",
	"x86_64": "Kernel Offset: disabled",
	"arm":    "panic from sysrq", // the unwinder comes no further
	"arm64":  "Memory Limit: none",
}

func TestTheCrashOfAKernelIsToldToItsEnd(t *testing.T) {
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

func TestTheMessageOfADeepTraceHasItsBeginAndItsEnd(t *testing.T) {
	t.Parallel()
	harnesstest.EachTarget(t, func(t *testing.T, target string) {
		m := crashes(t, target, crashesGuest)
		tell(t, m, "panic with a deep stack")
		_, err := m.Console().Expect(t.Context(), "never said")
		require.ErrorContains(t, err, "panic: no such sensor")
		report := m.Report()
		text := strings.Join(report.Console, "\n")
		require.Less(t, len(report.Console), 70)
		require.Regexp(t, `panic: no such sensor\n\ngoroutine \d+ \[running\]:\nmain\.deep\(`, text)
		require.Regexp(t, `\[\d+ lines left out\]`, text)
		require.Contains(t, text, "exit status 2")
		// Of 101 frames of the function Go itself leaves out 2 in the middle.
		require.GreaterOrEqual(t, strings.Count(consoleLog(t, m), "main.deep("), 98)
	})
}
