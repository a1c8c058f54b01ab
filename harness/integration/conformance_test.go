package integration

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"guesthouse.example/harness/harnesstest"
	"guesthouse.example/internal/target"
)

// The unit tests of the socket service run on the host. They run in the guest too, because it has
// another kernel, another processor and another word size.
func TestTheSocketServiceConformsInTheGuest(t *testing.T) {
	t.Parallel()
	eachWordSize(t, func(t *testing.T, name string) {
		tg, err := target.Lookup(name)
		require.NoError(t, err)
		suite := filepath.Join(t.TempDir(), "conformance")
		build := exec.Command("go", "test", "-c", "-trimpath", "-o", suite, "guesthouse.example/guest/socketservice")
		build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+tg.GOARCH, "GOARM="+tg.GOARM)
		out, err := build.CombinedOutput()
		require.NoError(t, err, "%s", out)

		m := harnesstest.Boot(t, harnesstest.Platform(t, name))
		ctx, cancel := m.Machine.Within(t.Context(), 10*harnesstest.Within)
		defer cancel()
		// The native run tries more random programs. The guest adds only its word size to them.
		said, err := m.Machine.Command(ctx, suite, "-test.short", "-rapid.checks", "50", "-test.v", "-test.timeout", "5m").CombinedOutput()
		require.NoError(t, err, "%s", said)
		require.Contains(t, string(said), "--- PASS: TestDefine")
		require.Regexp(t, `(?m)^PASS$`, string(said))
	})
}
