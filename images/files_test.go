package images

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestAUsersFilesAreAdded(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "run"), []byte("#!"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "data"), []byte("x"), 0o600))
	own := []record{regularFile("bin/uinit", nil, 0o755)}

	records, err := addFiles(own, map[string]string{"/opt/run": filepath.Join(dir, "run"), "/data": filepath.Join(dir, "data")}, nil)
	require.NoError(t, err)
	require.Len(t, records, 3)
	require.Equal(t, "data", records[1].name)
	require.EqualValues(t, unix.S_IFREG|0o644, records[1].mode, "the same wherever it is built, whatever the umask")
	require.Equal(t, "opt/run", records[2].name)
	require.EqualValues(t, unix.S_IFREG|0o755, records[2].mode)

	for name, says := range map[string]string{
		"data":         `"data" is not a clean absolute path in the guest`,
		"/":            `"/" is not a clean absolute path`,
		"/opt/../data": `"/opt/../data" is not a clean absolute path`,
		"/bin/uinit":   "/bin/uinit: the guest already has a file of this name",
	} {
		_, err := addFiles(own, map[string]string{name: filepath.Join(dir, "data")}, nil)
		require.ErrorContains(t, err, says)
	}
	_, err = addFiles(own, map[string]string{"/opt/missing": filepath.Join(dir, "missing")}, nil)
	require.ErrorContains(t, err, "/opt/missing: stat ")
}

// os.Open of a FIFO would wait for a writer.
func TestAFIFOIsRefusedAsAFileOfTheGuest(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "fifo")
	require.NoError(t, unix.Mkfifo(fifo, 0o600))
	_, err := addFiles(nil, map[string]string{"/etc/it": fifo}, nil)
	require.ErrorContains(t, err, "/etc/it: open "+fifo+": not a regular file")

	modules := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(modules, "kernel"), 0o700))
	require.NoError(t, unix.Mkfifo(filepath.Join(modules, "kernel", "virtio.ko"), 0o600))
	kernel := filepath.Join(t.TempDir(), "kernel") // of a form that says nothing about its processor
	require.NoError(t, os.WriteFile(kernel, []byte("a kernel"), 0o600))
	_, err = FetchKernel(t.Context(), "arm64", Options{Cache: t.TempDir(), Kernel: kernel, Modules: modules})
	require.ErrorContains(t, err, "not a regular file")
}
