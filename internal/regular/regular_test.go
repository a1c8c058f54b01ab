package regular

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestReadFileReadsARegularFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, []byte("text"), 0o600))
	text, err := ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, "text", string(text))

	link := file + ".link"
	require.NoError(t, os.Symlink(file, link))
	_, err = ReadFile(link)
	require.NoError(t, err)
	_, err = Open(file + ".missing")
	require.ErrorIs(t, err, os.ErrNotExist)
}

// No process writes to the FIFO.
func TestOpenRefusesOtherFilesAtOnce(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	require.NoError(t, unix.Mkfifo(fifo, 0o600))
	for _, name := range []string{fifo, dir, os.DevNull} {
		_, err := Open(name)
		require.ErrorIs(t, err, ErrOther)
		require.ErrorContains(t, err, "open "+name+": not a regular file")
	}
}
