package sys

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestMemoryOfAProcessCountsItsPages(t *testing.T) {
	before, err := MemoryOf(os.Getpid())
	require.NoError(t, err)
	require.Greater(t, before.Resident, before.Anonymous, "the program itself is a file")
	require.GreaterOrEqual(t, before.Resident, before.Proportional)
	require.Positive(t, before.Proportional)

	const size = 64 << 20
	// The race detector keeps a copy of what it knows beside Go's heap, but not beside such pages.
	pages, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	require.NoError(t, err)
	defer unix.Munmap(pages)
	for i := 0; i < size; i += os.Getpagesize() {
		pages[i] = 1
	}
	after, err := MemoryOf(os.Getpid())
	require.NoError(t, err)
	require.InDelta(t, size, after.Anonymous-before.Anonymous, size/4)

	_, err = MemoryOf(-1)
	require.ErrorIs(t, err, os.ErrNotExist)
}
