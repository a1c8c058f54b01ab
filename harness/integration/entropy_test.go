package integration

import (
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"guesthouse.example/harness"
	"guesthouse.example/harness/harnesstest"
)

// heldFor is the minimum time, on the guest's monotonic clock, for which a save stops the guest's
// programs.
const heldFor = 20 * time.Millisecond

// The agent stops all programs of the guest from before the save until the kernel of the restored
// machine is reseeded. So no goroutine draws the same numbers in two machines.
func TestNoTwoMachinesOfATemplateDrawTheSameRandomNumbers(t *testing.T) {
	t.Parallel()
	eachWordSize(t, func(t *testing.T, target string) {
		spec := harnesstest.Spec(t, target, "./guests/draws")
		spec.Accel = harness.TCG // which templates require
		original := fresh(t, spec)
		spec.From = original.Save(filepath.Join(t.TempDir(), "template"))
		machines := []*harnesstest.Machine{original}
		var all sync.WaitGroup
		var mu sync.Mutex
		for range 3 {
			all.Go(func() {
				m := restored(t, spec)
				mu.Lock()
				defer mu.Unlock()
				machines = append(machines, m)
			})
		}
		all.Wait()
		require.Len(t, machines, 4)
		seen := make(map[string]string)
		for i, m := range machines {
			for _, file := range []string{"/drawn-by-go-0", "/drawn-by-go-1", "/drawn-by-getrandom-0", "/drawn-by-getrandom-1"} {
				lines := strings.Fields(m.Output("sh", "-c", "while ! test -e "+file+"; do sleep 0.1; done; cat "+file))
				require.Len(t, lines, 1+200)
				held, err := time.ParseDuration(lines[0])
				require.NoError(t, err)
				require.GreaterOrEqual(t, held, heldFor, "machine %d%s drew until it was saved, or before it had entropy of its own", i, file)
				for _, value := range lines[1:] {
					by := fmt.Sprint("machine ", i, file)
					require.Empty(t, seen[value], "%s drew it again", by)
					seen[value] = by
				}
			}
		}
	})
}

// In a prefetched machine, the functions of guest.OnRestore run when a test boots it.
func TestOnRestoreRunsOnceInARestoredMachine(t *testing.T) {
	t.Parallel()
	target := oneTarget(t)
	spec := harnesstest.Spec(t, target, "./guests/draws")
	inEveryBootMode(t, spec, func(m *harness.Machine) {
		ctx, cancel := m.Within(t.Context(), harnesstest.Within)
		defer cancel()
		stats, err := m.Stats(ctx)
		require.NoError(t, err)
		told, err := m.Event(ctx)
		require.NoError(t, err)
		require.Equal(t, "restored as "+stats.BootID, told, "OnRestore ran before Boot returned")
		require.NoError(t, m.Command(ctx, "sh", "-c", "test $(cat /proc/sys/kernel/random/boot_id) = "+stats.BootID).Run(),
			"other programs see the new identity too")
		require.NoError(t, m.Shutdown(ctx))
		_, err = m.Event(ctx)
		require.ErrorContains(t, err, "the line has ended", "OnRestore ran once")
	})
}
