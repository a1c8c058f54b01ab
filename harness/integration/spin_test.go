package integration

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"guesthouse.example/harness"
	"guesthouse.example/harness/harnesstest"
	"guesthouse.example/harness/internal/baremetal"
)

// A guest that spins needs all of its processor, as a guest that works does. The harness tells them apart long before
// the deadline, and says where the guest is.
func TestAGuestThatSpinsFailsLongBeforeItsDeadline(t *testing.T) {
	t.Parallel()
	harnesstest.EachTarget(t, func(t *testing.T, target string) {
		file := filepath.Join(t.TempDir(), "guest.elf")
		guest, err := baremetal.Spinning(target, bareMetalSays)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(file, guest, 0o644))
		_, err = harness.Boot(t.Context(), harness.Spec{Target: target, Kernel: file, Ready: "never said", ReadyWithin: 6 * time.Second})
		require.ErrorIs(t, err, harness.ErrGuest)
		require.ErrorContains(t, err, `it hangs: it printed nothing and spun, its registers repeating, for 1.5s: its console has not shown "never said"; `+
			"its processor was in "+baremetal.SpinsIn+" (8 of 8 samples)")
	})
}
