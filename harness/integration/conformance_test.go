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

	"guesthouse.example/harness"
	"guesthouse.example/harness/harnesstest"
	"guesthouse.example/images"
	"guesthouse.example/internal/target"
)

// The unit tests of the socket service run on the host. They run in the guest too, because it has
// another kernel, another processor and another word size.
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

		spec := harnesstest.SpecWith(t, name, echoGuest, images.Options{Files: map[string]string{"/bin/conformance": suite}})
		spec.From = harness.Cold // no other test boots this image
		m := harnesstest.Boot(t, spec)
		// The native run tries more random programs. The guest adds only its word size to them.
		m.Send("sh /bin/conformance -test.short -rapid.checks 50 -test.v -test.timeout 5m")
		m.Expect(`--- PASS: TestDefine`)
		within := 5 * time.Minute
		ctx, cancel := context.WithTimeoutCause(t.Context(), within, fmt.Errorf("not done within %v", within))
		defer cancel()
		verdict, err := m.Console().Expect(ctx, `^(PASS|FAIL|--- FAIL.*)$`)
		require.NoError(t, err)
		require.Equal(t, "PASS", verdict[0])
	})
}
