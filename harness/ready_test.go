package harness

import (
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"guesthouse.example/harness/internal/agent"
	"guesthouse.example/harness/internal/machinetime"
	"guesthouse.example/harness/internal/testconsole"
	"guesthouse.example/harness/internal/vm"
)

// booting returns a machine whose guest is the test, and a function that prints as the guest does. The
// machine's clock is that of package synctest.
func booting(t *testing.T, ready string) (m *Machine, printText func(string)) {
	line, printText := testconsole.New(t)
	return &Machine{
		plan: &plan{
			spec: Spec{Ready: ready, FirstByteWithin: time.Minute, ReadyWithin: time.Minute},
		},
		ended: make(chan struct{}),
		vm: &vm.VM{
			Console: line,
			Agent:   agent.New(nil, io.Discard, nil),
			Clock:   machinetime.NewFake(func() machinetime.Sample { return machinetime.Sample{Runnable: true} }),
		},
	}, printText
}

func TestAMachineIsReadyWhenThePromptFollowsTheReadyLine(t *testing.T) {
	const readyLine = "[00:00:01.250,000] <inf> guesthouse: ready\n"
	for name, c := range map[string]struct {
		ready string
		lines []string // the guest prints one every 100 ms
		after time.Duration
		fails string
	}{
		"the prompt comes later":             {DefaultReady, []string{readyLine, "", "", "uart:~$ "}, 300 * time.Millisecond, ""},
		"a kernel message comes between":     {DefaultReady, []string{readyLine, "[    1.3] random: crng init done\n", "uart:~$ "}, 200 * time.Millisecond, ""},
		"an earlier prompt does not count":   {DefaultReady, []string{"uart:~$ \n", readyLine, "uart:~$ "}, 200 * time.Millisecond, ""},
		"a kernel message splits the prompt": {DefaultReady, []string{readyLine, "uart:[    1.3] oh\n~$ "}, promptWithin, ""},
		"a guest of another system":          {"zephyr is up$", []string{"zephyr is up\n"}, 0, ""},
		"a crash in between is not ready":    {DefaultReady, []string{readyLine, "Kernel panic - not syncing: no\n"}, 100 * time.Millisecond, "Kernel panic"},
		"the line end arrives later":         {DefaultReady, []string{"guesthouse: ready", "\n", "uart:~$ "}, 200 * time.Millisecond, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m, printText := booting(t, c.ready)
				start := time.Now()
				for i, line := range c.lines {
					time.AfterFunc(time.Duration(i)*100*time.Millisecond, func() { printText(line) })
				}
				err := m.waitReady(t.Context())
				if c.fails != "" {
					require.ErrorIs(t, err, ErrGuest)
					require.ErrorContains(t, err, c.fails)
				} else {
					require.NoError(t, err)
				}
				require.InDelta(t, c.after, time.Since(start), float64(machinetime.Tick))
			})
		})
	}
}
