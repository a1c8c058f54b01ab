package sys

import (
	"crypto/rand"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestDiskUsageCountsBlocksAndNotSizes(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "a/b"), 0o777))
	full, err := os.Create(filepath.Join(dir, "a/b/full"))
	require.NoError(t, err)
	defer full.Close()
	_, err = io.CopyN(full, rand.Reader, 1<<20) // no file system compresses random bytes
	require.NoError(t, err)
	require.NoError(t, full.Sync())
	sparse := filepath.Join(dir, "sparse")
	require.NoError(t, os.WriteFile(sparse, nil, 0o666))
	require.NoError(t, os.Truncate(sparse, 1<<30))
	require.NoError(t, os.Symlink(sparse, filepath.Join(dir, "link")))
	require.Less(t, DiskUsage(dir), int64(1<<30))
	require.GreaterOrEqual(t, DiskUsage(full.Name()), int64(1<<20))
	require.Equal(t, DiskUsage(full.Name())+DiskUsage(sparse), DiskUsage(dir))
	require.Zero(t, DiskUsage(filepath.Join(dir, "missing")))
}

func TestCacheLimitIsAtMostAQuarterOfTheDisk(t *testing.T) {
	dir := t.TempDir()
	require.EqualValues(t, 1, CacheLimit(dir, 0, 1))
	limit := CacheLimit(dir, 1<<60, 1<<62)
	require.GreaterOrEqual(t, limit, int64(1<<58), "the bytes that the cache holds count as free")
	require.Less(t, limit, int64(1<<59))
	require.EqualValues(t, 7, CacheLimit(filepath.Join(dir, "missing"), 0, 7))
	_, err := DiskFree(filepath.Join(dir, "missing"))
	require.ErrorIs(t, err, os.ErrNotExist)
}
