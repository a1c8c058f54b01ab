package template

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAMemoryOfChangesIsTheWholeMemory(t *testing.T) {
	base := ram(t)
	now := ram(t)
	for _, c := range []struct {
		at, size int64
		byte     byte
	}{
		{0, 4096, 0},             // the only data of its block has become zero
		{12288, 4096, 9},         // in the same block
		{3 * blockSize, 4096, 7}, // in a hole
		{5*blockSize - 4096, 2*blockSize + 8192, 8}, // across blocks
		{9 * blockSize, 8192, 0},                    // still a hole
		{segmentSize - 4096, 4096, 5},               // the last page
	} {
		for i := range c.size {
			_, err := now.WriteAt([]byte{c.byte}, c.at+i)
			require.NoError(t, err)
		}
	}
	want := NewWriter(t.TempDir())
	require.NoError(t, want.CopyRAM(t.Context(), now))

	w := NewWriter(t.TempDir())
	w.BeginRAM(base)
	w.BeginRAM(base) // does nothing
	require.NoError(t, base.Close())
	require.NoError(t, w.CopyChanges(t.Context(), now))
	w.Stop()
	require.Equal(t, want.ram.SHA256, w.ram.SHA256)
	wrote, err := os.ReadFile(filepath.Join(w.dir, ramName))
	require.NoError(t, err)
	is, err := os.ReadFile(now.Name())
	require.NoError(t, err)
	require.True(t, string(is) == string(wrote), "every byte is the machine's")
	_, err = checkContent(mustOpen(t, filepath.Join(w.dir, ramName)), ramName, w.ram)
	require.NoError(t, err)
}

func mustOpen(t *testing.T, name string) *os.File {
	f, err := os.Open(name)
	require.NoError(t, err)
	t.Cleanup(func() { f.Close() })
	return f
}

func TestACopyThatFailsOrEndsMakesNoMemory(t *testing.T) {
	w := NewWriter(filepath.Join(t.TempDir(), "missing"))
	w.BeginRAM(ram(t))
	require.ErrorIs(t, w.CopyChanges(t.Context(), ram(t)), os.ErrNotExist)
	w.Stop()

	w = NewWriter(t.TempDir())
	w.BeginRAM(ram(t))
	w.Stop()
	w.Stop() // Close of a machine may follow the end of its save
	NewWriter(t.TempDir()).Stop()

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w = NewWriter(t.TempDir())
	w.base = &baseCopy{done: make(chan struct{})} // it takes long
	require.ErrorIs(t, w.CopyChanges(ctx, ram(t)), context.Canceled)
}
