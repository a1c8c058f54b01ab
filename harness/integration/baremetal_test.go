package integration

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"guesthouse.example/harness"
	"guesthouse.example/harness/harnesstest"
	"guesthouse.example/harness/internal/baremetal"
)

// bareMetalSays is the line that a bare-metal guest prints before it idles forever.
const bareMetalSays = "no kernel here"

// A guest needs neither Linux nor an initramfs. The harness boots any file that QEMU's -kernel
// accepts, with the user's own Ready pattern.
func TestABareMetalGuestIsBooted(t *testing.T) {
	t.Parallel()
	harnesstest.EachTarget(t, func(t *testing.T, target string) {
		file := filepath.Join(t.TempDir(), "guest.elf")
		guest, err := baremetal.ELF(target, bareMetalSays)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(file, guest, 0o644))
		m, err := harness.Boot(t.Context(), harness.Spec{Target: target, Kernel: file, Ready: "^" + bareMetalSays + "$"})
		require.NoError(t, err)
		defer m.Close()
		require.Equal(t, sha256File(t, file), m.Result().KernelSHA256)
		require.Empty(t, m.Result().InitramfsSHA256)
		_, err = m.Stats(t.Context())
		require.ErrorContains(t, err, "statistics of "+target+": the guest has no agent")
		_, err = m.Event(t.Context())
		require.ErrorContains(t, err, "event of "+target+": the guest has no agent")
		ctx, cancel := m.Within(t.Context(), time.Second)
		defer cancel()
		err = m.Shutdown(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorContains(t, err, "shut down "+target+": the guest, asked by the power button and its console, because its agent could not: "+
			"the guest has no agent: it has not opened the port guesthouse.agent, has not powered off and was ended by force: ")
		require.Equal(t, harness.StateEnded, m.Result().State, "a guest that cannot power off has not failed")
	})
}
