package images

import (
	"testing"

	"github.com/stretchr/testify/require"

	"guesthouse.example/internal/imagecache"
)

func TestTheDeviceNodesAreThoseOfModulesAlias(t *testing.T) {
	nodes, err := writeTree(t, map[string][]byte{"modules.alias": []byte(`# Aliases
alias char-major-10-200 tun
alias devname:net/tun tun
alias devname:loop-control loop
alias char-major-10-237 loop
alias block-major-7-* loop
alias char-major-9-* st
alias devname:unnumbered other
alias block-major-7-3 disk
alias devname:disk disk
`)}).deviceNodes()
	require.NoError(t, err)
	require.Equal(t, "tun net/tun c10:200\nloop loop-control c10:237\ndisk disk b7:3\n", nodes)

	nodes, err = writeTree(t, nil).deviceNodes()
	require.NoError(t, err)
	require.Empty(t, nodes, "the user's kernel has no modules.alias")
	old := &tree{dir: t.TempDir(), files: &imagecache.Manifest{}}
	nodes, err = old.deviceNodes()
	require.NoError(t, err)
	require.Empty(t, nodes)
}
