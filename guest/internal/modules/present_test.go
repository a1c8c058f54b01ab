package modules

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestADriverThatTheKernelShowsIsPresent(t *testing.T) {
	sys := t.TempDir()
	for _, dir := range []string{"module/virtio_net", "bus/pci/drivers/virtio-pci", "bus/virtio/drivers/virtio_console"} {
		require.NoError(t, os.MkdirAll(filepath.Join(sys, dir), 0o777))
	}
	for name, want := range map[string]bool{
		"virtio_net": true, "virtio-net": true, // it has parameters
		"virtio_pci": true, "virtio_console": true, // these have none
		"virtio_blk": false, "virtio": false, "pci:v00001AF4d00001000sv*": false,
	} {
		require.Equal(t, want, present(sys, name), name)
	}
}
