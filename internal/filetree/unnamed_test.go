package filetree

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// Killed processes remove nothing.
func TestAnUnnamedFileLeavesNothingBehind(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/from", string(make([]byte, 3*MaxBatch)), 0o640)
	require.NoError(t, os.Mkdir(dir+"/to", 0o777))
	write(t, dir+"/to/old", "old", 0o600)
	for _, name := range []string{"new", "old"} {
		r := NewReceiver(Destination{Path: filepath.Join(dir, "to", name), Unnamed: true})
		batches := 0
		require.NoError(t, Send(dir+"/from", func(batch []byte) error {
			before := listing(t, dir+"/to")
			if err := r.Write(batch); err != nil {
				return err
			}
			if batches++; !IsLast(batch) {
				require.Equal(t, before, listing(t, dir+"/to"))
			}
			return nil
		}))
		require.Greater(t, batches, 2)
		require.True(t, r.Done())
		require.NoError(t, r.Close())
	}
	entries, err := os.ReadDir(dir + "/to")
	require.NoError(t, err)
	require.Len(t, entries, 2)
	for _, e := range entries {
		info, err := e.Info()
		require.NoError(t, err)
		require.EqualValues(t, 3*MaxBatch, info.Size())
		require.EqualValues(t, 0o640, info.Mode())
	}
}

func TestATreeOfUnnamedFilesIsCopiedAndMerged(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/from/a", "a", 0o755)
	write(t, dir+"/from/sub/b", "b", 0o400)
	require.NoError(t, os.Symlink("a", dir+"/from/link"))
	for range 2 {
		require.NoError(t, copyTree(t, dir+"/from", Destination{Path: dir + "/to", Exact: true, Unnamed: true}))
		require.Equal(t, listing(t, dir+"/from"), listing(t, dir+"/to"))
	}
	require.NoError(t, os.Mkdir(dir+"/a", 0o777))
	require.ErrorContains(t, copyTree(t, dir+"/from/a", Destination{Path: dir + "/a", Exact: true, Unnamed: true}), "it exists and is a directory")
	require.Equal(t, []string{"a", "from", "to"}, names(t, dir))
}

func names(t *testing.T, dir string) (all []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}
