package sys

import (
	"os"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestMemoryOfAProcessCountsItsPages(t *testing.T) {
	before, err := MemoryOf(os.Getpid())
	require.NoError(t, err)
	require.Greater(t, before.Resident, before.Anonymous, "the program itself is a file")
	require.GreaterOrEqual(t, before.Resident, before.Proportional)
	require.Positive(t, before.Proportional)

	const size = 64 << 20
	pages := make([]byte, size)
	for i := range pages {
		pages[i] = 1
	}
	after, err := MemoryOf(os.Getpid())
	require.NoError(t, err)
	require.InDelta(t, size, after.Anonymous-before.Anonymous, size/4)
	runtime.KeepAlive(pages)

	_, err = MemoryOf(-1)
	require.ErrorIs(t, err, os.ErrNotExist)
}
