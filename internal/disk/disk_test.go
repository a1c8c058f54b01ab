package disk

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
	require.Less(t, Usage(dir), int64(1<<30))
	require.GreaterOrEqual(t, Usage(full.Name()), int64(1<<20))
	require.Equal(t, Usage(full.Name())+Usage(holes), Usage(dir))
	require.Zero(t, Usage(filepath.Join(dir, "gone")))
}

func TestRoomIsPartOfTheDisk(t *testing.T) {
	dir := t.TempDir()
	require.EqualValues(t, 1, Room(dir, 0, 1))
	room := Room(dir, 1<<60, 1<<62)
	require.GreaterOrEqual(t, room, int64(1<<58), "what the cache holds counts as free")
	require.Less(t, room, int64(1<<59))
	require.EqualValues(t, 7, Room(filepath.Join(dir, "gone"), 0, 7))
	_, err := Free(filepath.Join(dir, "gone"))
	require.ErrorIs(t, err, os.ErrNotExist)
}
