package sys

import (
	"crypto/rand"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestUsageIsThatOfTheDisk(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "a/b"), 0o777))
	full, err := os.Create(filepath.Join(dir, "a/b/full"))
	require.NoError(t, err)
	defer full.Close()
	_, err = io.CopyN(full, rand.Reader, 1<<20) // what no disk compresses
	require.NoError(t, err)
	require.NoError(t, full.Sync())
	holes := filepath.Join(dir, "holes")
	require.NoError(t, os.WriteFile(holes, nil, 0o666))
	require.NoError(t, os.Truncate(holes, 1<<30))
	require.NoError(t, os.Symlink(holes, filepath.Join(dir, "link")))
	require.Less(t, DiskUsage(dir), int64(1<<30))
	require.GreaterOrEqual(t, DiskUsage(full.Name()), int64(1<<20))
	require.Equal(t, DiskUsage(full.Name())+DiskUsage(holes), DiskUsage(dir))
	require.Zero(t, DiskUsage(filepath.Join(dir, "gone")))
}

func TestRoomIsPartOfTheDisk(t *testing.T) {
	dir := t.TempDir()
	require.EqualValues(t, 1, CacheLimit(dir, 0, 1))
	room := CacheLimit(dir, 1<<60, 1<<62)
	require.GreaterOrEqual(t, room, int64(1<<58), "what the cache holds counts as free")
	require.Less(t, room, int64(1<<59))
	require.EqualValues(t, 7, CacheLimit(filepath.Join(dir, "gone"), 0, 7))
	_, err := DiskFree(filepath.Join(dir, "gone"))
	require.ErrorIs(t, err, os.ErrNotExist)
}
