package integration

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"guesthouse.example/harness"
)

// Each generation writes a file that the next ones find, and answers on the network.
func TestARestoredMachineIsSavedInTheMiddleOfAScenario(t *testing.T) {
	t.Parallel()
	eachWordSize(t, func(t *testing.T, target string) {
		spec := echoSpec(t, target)
		_, first := save(t, spec)
		spec.Savable = true
		template := first
		const generations = 3
		for n := 1; n <= generations; n++ {
			spec.From = template
			m := restored(t, spec)
			for before := 1; before < n; before++ {
				require.Equal(t, fmt.Sprintf("%d\n", before), m.Output("cat", fmt.Sprintf("/tmp/%d", before)))
			}
			m.Output("sh", "-c", fmt.Sprintf("echo %d >/tmp/%d", n, n))
			m.Send("net sockets")
			m.Expect(`^3 services$`)
			template = m.Save(filepath.Join(t.TempDir(), "template"))
			m.Output("sh", "-c", "echo later >/tmp/later") // the machine goes on, and the template has none of it
		}

		spec.From, spec.Savable = template, false
		for range 2 {
			m := restored(t, spec)
			echoes(t, m.Dial("tcp", echoPort), "from the last generation")
			require.Equal(t, fmt.Sprintf("%d\n", generations), m.Output("cat", fmt.Sprintf("/tmp/%d", generations)))
			_, err := m.Machine.Command(t.Context(), "cat", "/tmp/later").Output()
			require.Error(t, err)
			_, err = m.Machine.Save(t.Context(), filepath.Join(t.TempDir(), "template"))
			require.ErrorContains(t, err, "restored from a template without Spec.Savable")
		}
		spec.From = first
		_, err := restored(t, spec).Machine.Command(t.Context(), "cat", "/tmp/1").Output()
		require.Error(t, err, "nothing was written to the first template")
	})
}

// A machine that can be saved is restored when it is asked for, from the cache's template.
func TestASavableMachineIsNotPrefetched(t *testing.T) {
	t.Parallel()
	spec := echoSpec(t, oneTarget(t))
	spec.Accel = harness.TCG
	cache := ownCache(t, spec)
	cache.Prefetch = true
	t.Cleanup(cache.Close)
	require.Equal(t, savedFirst(spec), bootFrom(t, cache, spec))
	spec.Savable = true
	require.Equal(t, "restored: a prefetched machine cannot be saved", bootFrom(t, cache, spec))
}
