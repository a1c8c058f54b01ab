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

// booting is a machine that does what a test has its guest say, on a clock that
// stands still where synctest's does.
func booting(t *testing.T, ready string) (m *Machine, says func(string)) {
	line, says := testconsole.New(t)
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
	}, says
}

func TestAMachineIsReadyWhenThePromptStandsBelowTheWord(t *testing.T) {
	const word = "[00:00:01.250,000] <inf> guesthouse: ready\n"
	for name, c := range map[string]struct {
		ready string
		lines []string // one each 100 ms
		after time.Duration
		fails string
	}{
		"the prompt comes later":            {DefaultReady, []string{word, "", "", "uart:~$ "}, 300 * time.Millisecond, ""},
		"a kernel message stands between":   {DefaultReady, []string{word, "[    1.3] random: crng init done\n", "uart:~$ "}, 200 * time.Millisecond, ""},
		"an earlier prompt does not count":  {DefaultReady, []string{"uart:~$ \n", word, "uart:~$ "}, 200 * time.Millisecond, ""},
		"a kernel message splits it":        {DefaultReady, []string{word, "uart:[    1.3] oh\n~$ "}, promptWithin, ""},
		"a guest of another kind":           {"zephyr is up$", []string{"zephyr is up\n"}, 0, ""},
		"a crash in between is not ready":   {DefaultReady, []string{word, "Kernel panic - not syncing: no\n"}, 100 * time.Millisecond, "Kernel panic"},
		"a line that is cut is not the end": {DefaultReady, []string{"guesthouse: ready", "\n", "uart:~$ "}, 200 * time.Millisecond, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m, says := booting(t, c.ready)
				start := time.Now()
				for i, line := range c.lines {
					time.AfterFunc(time.Duration(i)*100*time.Millisecond, func() { says(line) })
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
