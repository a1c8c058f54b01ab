package sys

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestIdle(t *testing.T) {
	var i IdleMeter
	now := time.Now()
	look := func(stat string, after time.Duration) (float64, bool) {
		now = now.Add(after)
		return i.read(stat, now)
	}
	_, ok := look("cpu  10 0 10 100 50 0\ncpu0 …", 0)
	require.False(t, ok, "it is the first")
	n, ok := look("cpu  10 0 10 180 70 0\n", time.Second)
	require.True(t, ok)
	require.InDelta(t, 1, n, 1e-9)
	n, ok = look("cpu  10 0 10 190 65 0\n", time.Second/2)
	require.True(t, ok)
	require.InDelta(t, 0.1, n, 1e-9)
	n, ok = look("cpu  10 0 10 190 60 0\n", time.Second)
	require.True(t, ok)
	require.Zero(t, n, "the kernel counts waits for disks back now and then")
	for _, bad := range []string{"", "cpu  1 2 3 4\n", "cpu  1 2 3 x 5 6\n", "intr 1 2 3 4 5 6\n"} {
		_, ok = look(bad, time.Second)
		require.False(t, ok, bad)
	}

	i = IdleMeter{stat: filepath.Join(t.TempDir(), "nothing")}
	_, ok = i.Read()
	require.False(t, ok)
	i = IdleMeter{}
	i.Read()
	_, ok = i.Read()
	require.True(t, ok, "the kernel tells")
}
