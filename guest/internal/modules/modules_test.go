package modules

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestModulesAreLoadedForDevicesWithoutADriver(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		file := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o777))
		require.NoError(t, os.WriteFile(file, []byte(text), 0o666))
		return file
	}
	aliases := write("modules.alias", "# Aliases\nalias virtio:d00000001v* virtio_net\nalias virtio:d00000002v* virtio_blk\nalias pci:v00001AF4d*sv*sd*bc*sc*i* virtio_pci\n")
	require.Empty(t, forDevices(dir, aliases), "there is no device")
	write("bus/virtio/devices/virtio0/modalias", "virtio:d00000001v00001AF4\n")
	write("bus/virtio/devices/virtio0/driver/name", "")
	require.Empty(t, forDevices(dir, aliases), "the device has a driver")
	write("bus/virtio/devices/virtio1/modalias", "virtio:d00000002v00001AF4\n")
	write("bus/virtio/devices/virtio2/modalias", "virtio:d00000002v00001AF4\n")
	write("bus/virtio/devices/virtio3/modalias", "virtio:d00000004v00001AF4\n")
	require.Equal(t, []string{"virtio_blk"}, forDevices(dir, aliases), "one module for two disks, and none for a device that no module drives")
	require.Empty(t, forDevices(dir, filepath.Join(dir, "nowhere")))
}
