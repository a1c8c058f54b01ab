package modules

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAModuleIsFoundByNameAndByAlias(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"modules.builtin": "kernel/fs/ext4/ext4.ko\nkernel/lib/crc-x.ko\n",
		"modules.dep": "kernel/net/bridge/bridge.ko: kernel/net/802/stp.ko kernel/net/llc/llc.ko\n" +
			"kernel/net/802/stp.ko: kernel/net/llc/llc.ko\nkernel/net/llc/llc.ko:\nkernel/drivers/net/veth.ko.xz:\nkernel/a/one.ko:\nkernel/a/two-x.ko:\n",
		"modules.alias": "# Aliases\nalias rtnl-link-bridge bridge\nalias rtnl-link-veth veth\nalias pci:v00001AF4d*sv* two_x\nalias pci:v00001AF4d0001* one\n",
	} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o666))
	}
	loaded := func(name string) (files []string) {
		require.NoError(t, probe(dir, name, func(file string) error {
			rel, err := filepath.Rel(dir, file)
			files = append(files, rel)
			return err
		}), name)
		return files
	}
	bridge := []string{"kernel/net/llc/llc.ko", "kernel/net/802/stp.ko", "kernel/net/bridge/bridge.ko"}
	require.Equal(t, bridge, loaded("bridge"))
	require.Equal(t, bridge, loaded("rtnl-link-bridge"))
	require.Equal(t, bridge, loaded("rtnl_link_bridge"))
	require.Equal(t, []string{"kernel/drivers/net/veth.ko.xz"}, loaded("rtnl-link-veth"))
	require.Equal(t, []string{"kernel/a/two-x.ko"}, loaded("two_x"))
	require.Equal(t, []string{"kernel/a/two-x.ko", "kernel/a/one.ko"}, loaded("pci:v00001AF4d0001sv1"), "every module of an alias")
	require.Empty(t, loaded("ext4"), "it is built in")
	require.Empty(t, loaded("crc_x"))

	none := func(string) error { return nil }
	require.ErrorIs(t, probe(dir, "nosuch", none), ErrMissing)
	require.ErrorIs(t, probe(filepath.Join(dir, "nowhere"), "veth", none), ErrMissing)
	broken := errors.New("broken")
	require.ErrorIs(t, probe(dir, "veth", func(string) error { return broken }), broken)
}

// The kernel asks for net-pf-40 when a program opens a socket of AF_VSOCK. The first module of this alias drives a
// hypervisor's device.
func TestAModuleWithoutItsDeviceDoesNotKeepTheOthersOfAnAlias(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"modules.dep": "kernel/drivers/hv/hv_vmbus.ko:\nkernel/net/vsock.ko:\nkernel/net/hv_sock.ko: kernel/net/vsock.ko kernel/drivers/hv/hv_vmbus.ko\n" +
			"kernel/net/vsock_loopback.ko: kernel/net/vsock.ko\n",
		"modules.alias": "alias net-pf-40 hv_sock\nalias net-pf-40 vsock_loopback\nalias net-pf-41 hv_sock\n",
	} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o666))
	}
	absent := errors.New("no such device")
	var loaded []string
	load := func(file string) error {
		if filepath.Base(file) == "hv_vmbus.ko" {
			return absent
		}
		loaded = append(loaded, filepath.Base(file))
		return nil
	}
	require.NoError(t, probe(dir, "net-pf-40", load))
	require.Contains(t, loaded, "vsock_loopback.ko")
	require.NotContains(t, loaded, "hv_sock.ko")
	require.ErrorIs(t, probe(dir, "net-pf-41", load), absent, "no module of this alias can be loaded")
	require.ErrorIs(t, probe(dir, "hv_sock", load), absent)
}
