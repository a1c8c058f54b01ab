package records

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// A disk that fills up while a machine runs loses no byte that was written before, and the result can
// still be replaced.
func TestAFullDiskIsInTheResultOfItsRecord(t *testing.T) {
	dir := smallDisk(t, 64<<10)
	r, err := Create(filepath.Join(dir, "record"), nil, nil)
	require.NoError(t, err)
	r.WriteResult(result{"booting", ""})
	require.NoError(t, r.Failure())

	n, err := r.logs["console.log"].Write([]byte("early\n"))
	require.NoError(t, err)
	require.Equal(t, 6, n)
	for range 100 { // the writer sees no error
		n, err := r.logs["console.log"].Write(make([]byte, 4<<10))
		require.NoError(t, err)
		require.Equal(t, 4<<10, n)
	}
	require.ErrorIs(t, r.Failure(), unix.ENOSPC)
	require.EqualError(t, r.Failure(), "record "+r.dir+": console.log: no space left on device")
	<-r.failed.Done()

	for _, state := range []string{"failed", strings.Repeat("long ", 100), "ended"} {
		r.WriteResult(result{state, ""})
		var got result
		text, err := os.ReadFile(r.path("result.json"))
		require.NoError(t, err)
		require.NoError(t, json.Unmarshal(text, &got))
		require.Equal(t, state, got.State)
	}
	r.Close(true)
	text, err := os.ReadFile(r.path("console.log"))
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(string(text), "early\n\x00"))
	require.NoFileExists(t, r.path("result.json.new"))
}

// smallDisk returns a directory in a file system of a size in bytes. The file system is not mounted
// anywhere. Only root may make it.
func smallDisk(t *testing.T, bytes int) string {
	t.Helper()
	fs, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err == unix.EPERM {
		t.Skip("the kernel lets only root make a small disk")
	}
	require.NoError(t, err)
	defer unix.Close(fs)
	require.NoError(t, unix.FsconfigSetString(fs, "size", fmt.Sprint(bytes)))
	require.NoError(t, unix.FsconfigCreate(fs))
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	require.NoError(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), fd)
}
