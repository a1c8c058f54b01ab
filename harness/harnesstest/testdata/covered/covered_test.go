// Package covered has tests whose coverage profile a test of package harnesstest looks into.
package covered

import (
	"testing"

	"github.com/stretchr/testify/require"

	"guesthouse.example/harness/harnesstest"
)

func TestParts(t *testing.T) {
	harnesstest.EachTarget(t, func(t *testing.T, target string) {
		spec := harnesstest.Spec(t, target, "./cmd/parts")

		closed := harnesstest.Boot(t, spec)
		closed.Send("sh kill -10 $PPID")
		require.Equal(t, "ran", closed.Event())
		closed.Close()

		off := harnesstest.Boot(t, spec)
		off.Send("sh kill -12 $PPID")
		require.Equal(t, "ran", off.Event())
		require.Equal(t, "ran\n", off.Output("/bin/uinit", "command"))
		off.Shutdown()
	})
}
