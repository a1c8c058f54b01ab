package regular

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

const (
	sumOfOne = "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed"
	sumOfTwo = "3fc4ccfe745870e2c0d99f71f30ff0656c8dedd41cc1d7d3d376b0dbe685e2f3"
)

// nextTick waits until the kernel's file times have moved on, which are coarser than the clock.
func nextTick(t *testing.T) {
	t.Helper()
	probe := filepath.Join(t.TempDir(), "probe")
	changed := func() int64 {
		require.NoError(t, os.WriteFile(probe, []byte("probe"), 0o600))
		f, err := Open(probe)
		require.NoError(t, err)
		defer f.Close()
		s, err := StateOf(f)
		require.NoError(t, err)
		return s.Changed
	}
	first := changed()
	require.Eventually(t, func() bool { return changed() > first }, 10*time.Second, time.Millisecond)
}

func TestSHA256IsThatOfTheContentNow(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, []byte("one"), 0o600))
	var callers sync.WaitGroup
	for range 4 {
		callers.Go(func() {
			if sum, err := SHA256(file); err != nil || sum != sumOfOne {
				t.Error(sum, err)
			}
		})
	}
	callers.Wait()

	nextTick(t)
	// A write of the same size that hides its time of modification.
	info, err := os.Stat(file)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(file, []byte("two"), 0o600))
	require.NoError(t, os.Chtimes(file, info.ModTime(), info.ModTime()))
	sum, err := SHA256(file)
	require.NoError(t, err)
	require.Equal(t, sumOfTwo, sum)

	_, err = SHA256(file + ".missing")
	require.ErrorIs(t, err, os.ErrNotExist)
	fifo := file + ".fifo"
	require.NoError(t, unix.Mkfifo(fifo, 0o600))
	_, err = SHA256(fifo)
	require.ErrorIs(t, err, ErrOther)
	sum, err = Sum(strings.NewReader("one"))
	require.NoError(t, err)
	require.Equal(t, sumOfOne, sum)
}

func TestACopyAndAnUpdateHaveAnotherState(t *testing.T) {
	dir := t.TempDir()
	state := func(name, text string) State {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
		f, err := Open(filepath.Join(dir, name))
		require.NoError(t, err)
		defer f.Close()
		s, err := StateOf(f)
		require.NoError(t, err)
		return s
	}
	one := state("file", "one")
	nextTick(t)
	require.EqualValues(t, 3, one.Size)
	require.NotEqual(t, one.Inode, state("copy", "one").Inode)
	require.NotEqual(t, one, state("file", "two"))
}

func TestAFileWhoseHashIsKnownIsNotRead(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, []byte("1"), 0o666))
	state, err := StateAt(file)
	require.NoError(t, err)
	Know(state, "told")
	sum, err := SHA256(file)
	require.NoError(t, err)
	require.Equal(t, "told", sum)
	require.NoError(t, os.WriteFile(file, []byte("22"), 0o666))
	sum, err = SHA256(file)
	require.NoError(t, err)
	require.NotEqual(t, "told", sum, "the file has changed")
}
