package sys

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestMemoryIsTheHostsOrThatOfAControlGroup(t *testing.T) {
	available, total, ok := Memory()
	require.True(t, ok)
	require.Positive(t, available)
	require.Greater(t, total, available)

	dir := t.TempDir()
	write := func(name, text string) {
		file := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
		require.NoError(t, os.WriteFile(file, []byte(text), 0o644))
	}
	read := func(groups string) [2]int64 {
		available, total, ok := memory(filepath.Join(dir, "meminfo"), []byte(groups), dir)
		require.True(t, ok)
		return [2]int64{available, total}
	}
	_, _, ok = memory(filepath.Join(dir, "meminfo"), nil, dir)
	require.False(t, ok)
	write("meminfo", "MemTotal:  1000 kB\nMemFree: 1 kB\nMemAvailable:   600 kB\n")
	host := [2]int64{600 << 10, 1000 << 10}
	require.Equal(t, host, read("0::/a/b\n"), "no control group can be read")

	write("a/memory.max", "max\n")
	write("a/memory.current", "200000\n")
	write("a/memory.stat", "anon 1\nactive_file 10000\ninactive_file 20000\n")
	require.Equal(t, host, read("0::/a/b\n"), "the group has no limit")
	write("a/memory.max", "300000\n")
	require.Equal(t, [2]int64{130000, 300000}, read("0::/a/b\n"), "the limit of a parent group holds")
	require.Equal(t, host, read("0::/c\n"), "the limit belongs to another group")
	write("a/memory.current", "400000\n")
	require.Equal(t, [2]int64{0, 300000}, read("0::/a\n"), "a group that exceeds its limit has nothing left")

	write("memory/memory.limit_in_bytes", "9223372036854771712\n")
	write("memory/memory.usage_in_bytes", "900000\n")
	write("memory/memory.stat", "total_active_file 1\n")
	require.Equal(t, host, read("4:memory:/x\n0::/\n"))
	write("memory/memory.limit_in_bytes", "800000\n")
	write("memory/memory.usage_in_bytes", "500000\n")
	write("memory/memory.stat", "active_file 7\ntotal_active_file 1000\ntotal_inactive_file 2000\n")
	require.Equal(t, [2]int64{303000, 800000}, read("4:memory:/x\n0::/\n"), "version 1 of control groups")
}

func TestAFieldIsTheNumberAfterANameAtTheStartOfALine(t *testing.T) {
	rollup := []byte("5581-7fff ---p 00000000 00:00 0    [rollup]\nRss:    172 kB\nAnonymous:       84 kB\nAnonHugePages:  0 kB\nBroken:\n")
	n, ok := field(rollup, "Anonymous:")
	require.True(t, ok)
	require.EqualValues(t, 84, n)
	for _, name := range []string{"Anon:", "Broken:", "rollup:"} {
		_, ok = field(rollup, name)
		require.False(t, ok, name)
	}
}
