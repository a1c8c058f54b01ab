package sys

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestIdleMeterReturnsTheAverageSinceThePreviousRead(t *testing.T) {
	var m IdleMeter
	now := time.Now()
	read := func(stat string, after time.Duration) (float64, bool) {
		now = now.Add(after)
		return m.read(stat, now)
	}
	_, ok := read("cpu  10 0 10 100 50 0\ncpu0 …", 0)
	require.False(t, ok, "the first Read has no interval")
	n, ok := read("cpu  10 0 10 180 70 0\n", time.Second)
	require.True(t, ok)
	require.InDelta(t, 1, n, 1e-9)
	n, ok = read("cpu  10 0 10 190 65 0\n", time.Second/2)
	require.True(t, ok)
	require.InDelta(t, 0.1, n, 1e-9)
	n, ok = read("cpu  10 0 10 190 60 0\n", time.Second)
	require.True(t, ok)
	require.Zero(t, n, "the kernel's iowait may decrease")
	for _, bad := range []string{"", "cpu  1 2 3 4\n", "cpu  1 2 3 x 5 6\n", "intr 1 2 3 4 5 6\n"} {
		_, ok = read(bad, time.Second)
		require.False(t, ok, bad)
	}

	m = IdleMeter{file: filepath.Join(t.TempDir(), "missing")}
	_, ok = m.Read()
	require.False(t, ok)
	m = IdleMeter{}
	m.Read()
	_, ok = m.Read()
	require.True(t, ok, "/proc/stat can be read")
}

func TestStolenTimeIsCountedForEachProcessor(t *testing.T) {
	file := filepath.Join(t.TempDir(), "stat")
	require.NoError(t, os.WriteFile(file, []byte(`cpu  646832 0 312178 2708030 2373 0 18253 350 0 0
cpu0 322231 0 153564 1357806 475 0 9904 150 0 0
cpu1 324600 0 158614 1350224 1897 0 8348 200 0 0
intr 1 2 3 4 5 6 7 8 9 10
`), 0o644))
	require.Equal(t, map[int]time.Duration{0: 1500 * time.Millisecond, 1: 2 * time.Second}, stolenTime(file))
	require.Empty(t, stolenTime(filepath.Join(t.TempDir(), "missing")))
}
