package integration

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"guesthouse.example/harness"
	"guesthouse.example/harness/harnesstest"
	"guesthouse.example/images"
)

// coverFiles returns the names of the files with coverage data in a directory.
func coverFiles(t *testing.T, dir string) (metadata, counters []string) {
	t.Helper()
	metadata, err := filepath.Glob(filepath.Join(dir, "covmeta.*"))
	require.NoError(t, err)
	counters, err = filepath.Glob(filepath.Join(dir, "covcounters.*"))
	require.NoError(t, err)
	return metadata, counters
}

func TestTheCoverageOfAGuestLeavesItsMachine(t *testing.T) {
	t.Parallel()
	target := oneTarget(t)
	spec := harnesstest.SpecWith(t, target, echoGuest, images.Options{BuildFlags: []string{"-cover", "-covermode=atomic"}})
	for name, c := range map[string]struct {
		end      func(*testing.T, *harness.Machine)
		counters int
		says     string // agent.log
	}{
		"closed":   {func(t *testing.T, m *harness.Machine) { require.NoError(t, m.Close()) }, 1, ""},
		"shut off": {func(t *testing.T, m *harness.Machine) { require.NoError(t, m.Shutdown(t.Context())) }, 1, ""},
		"crashed": {func(t *testing.T, m *harness.Machine) {
			require.NoError(t, m.Console().Send(t.Context(), "sh echo c >/proc/sysrq-trigger"))
			require.ErrorIs(t, m.Wait(t.Context()), harness.ErrGuest)
			require.NoError(t, m.Close())
		}, 0, "harness: the coverage of this machine's programs is lost: the guest failed: "},
		"gone": {func(t *testing.T, m *harness.Machine) {
			require.NoError(t, m.Console().Send(t.Context(), "sh kill -9 $PPID")) // no hook runs
			require.Error(t, m.Wait(t.Context()))
			require.NoError(t, m.Close())
		}, 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			spec := from(new(harness.TemplateCache), spec)
			spec.Dir, spec.CoverDir = t.TempDir(), filepath.Join(t.TempDir(), "cover")
			m, err := harness.Boot(t.Context(), spec)
			require.NoError(t, err)
			defer m.Close()
			c.end(t, m)
			metadata, counters := coverFiles(t, spec.CoverDir)
			require.Len(t, counters, c.counters)
			if c.counters > 0 {
				require.NotEmpty(t, metadata)
			}
			log, err := os.ReadFile(filepath.Join(spec.Dir, "agent.log"))
			require.NoError(t, err)
			if c.says != "" {
				require.Contains(t, string(log), c.says)
			} else {
				require.NotContains(t, string(log), "is lost")
			}
		})
	}
}
