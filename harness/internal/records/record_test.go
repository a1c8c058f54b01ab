package records

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestADirectoryThatWasReplacedIsNotLocked(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "record")
	require.NoError(t, os.Mkdir(dir, 0o700))
	f, err := os.Open(dir)
	require.NoError(t, err)
	defer f.Close()
	require.NoError(t, os.Remove(dir))
	require.ErrorIs(t, lockAtPath(f, unix.LOCK_EX), os.ErrNotExist)
	require.NoError(t, os.Mkdir(dir, 0o700))
	require.ErrorIs(t, lockAtPath(f, unix.LOCK_EX), os.ErrNotExist)
}

func TestCreateFailsIfItCannotMakeTheDirectory(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o644))
	_, err := Create(filepath.Join(file, "run"), nil, nil)
	require.ErrorContains(t, err, "not a directory")
}
