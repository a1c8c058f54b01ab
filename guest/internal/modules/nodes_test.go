package modules

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestDeviceNodesAreThoseOfTheList(t *testing.T) {
	list, dev := filepath.Join(t.TempDir(), "modules.devname"), t.TempDir()
	require.NoError(t, makeNodes(list, dev), "a kernel without modules has no list")
	require.NoError(t, os.WriteFile(list, []byte("# Device nodes\ntun net/tun c10:200\nfuse fuse c10:229\n"), 0o666))
	require.NoError(t, os.WriteFile(filepath.Join(dev, "fuse"), nil, 0o666))
	err := makeNodes(list, dev)
	if os.Getuid() != 0 {
		require.ErrorIs(t, err, unix.EPERM)
		require.ErrorContains(t, err, "net/tun")
		return
	}
	require.NoError(t, err)
	var st unix.Stat_t
	require.NoError(t, unix.Stat(filepath.Join(dev, "net/tun"), &st))
	require.EqualValues(t, unix.S_IFCHR|0o600, st.Mode)
	require.Equal(t, unix.Mkdev(10, 200), uint64(st.Rdev))
	require.NoError(t, unix.Stat(filepath.Join(dev, "fuse"), &st))
	require.EqualValues(t, unix.S_IFREG, st.Mode&unix.S_IFMT, "a file that exists stays")
}
