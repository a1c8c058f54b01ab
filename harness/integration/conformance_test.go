package integration

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"guesthouse.example/harness/harnesstest"
	"guesthouse.example/images"
	"guesthouse.example/internal/target"
)

// The socket service's own tests, which run natively beside its code, run in
// the guest too: on its kernel, its processor and its word size.
func TestTheSocketServiceConformsInTheGuest(t *testing.T) {
	t.Parallel()
	harnesstest.EachTarget(t, func(t *testing.T, name string) {
		tg, err := target.Lookup(name)
		require.NoError(t, err)
		suite := filepath.Join(t.TempDir(), "conformance")
		build := exec.Command("go", "test", "-c", "-trimpath", "-o", suite, "guesthouse.example/guest/socketservice")
		build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+tg.GOARCH, "GOARM="+tg.GOARM)
		out, err := build.CombinedOutput()
		require.NoError(t, err, "%s", out)

		m := harnesstest.Boot(t, harnesstest.SpecWith(t, name, echoGuest, images.Options{Files: map[string]string{"/bin/conformance": suite}}))
		// -short: what tries many random programs tries fewer than it does natively. All that
		// the guest adds to it is the word size.
		m.Send("sh /bin/conformance -test.short -rapid.checks 500 -test.v -test.timeout 5m")
		m.Expect(`--- PASS: TestDefine`)
		within := 5 * time.Minute
		ctx, cancel := context.WithTimeoutCause(t.Context(), within, fmt.Errorf("not done within %v", within))
		defer cancel()
		verdict, err := m.Console().Expect(ctx, `^(PASS|FAIL|--- FAIL.*)$`)
		require.NoError(t, err)
		require.Equal(t, "PASS", verdict[0])
	})
}
