package images

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"
	"github.com/ulikunitz/xz"
)

func xzed(t *testing.T, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := xz.NewWriter(&b)
	require.NoError(t, err)
	_, err = w.Write(data)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return b.Bytes()
}

func zstded(t *testing.T, data []byte) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	require.NoError(t, err)
	return w.EncodeAll(data, nil)
}

func writeTree(t *testing.T, files map[string][]byte) *tree {
	t.Helper()
	dir := t.TempDir()
	for name, data := range files {
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o777))
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), data, 0o666))
	}
	tree, err := readTree(dir, nil, nil)
	require.NoError(t, err)
	return tree
}

func TestClosure(t *testing.T) {
	tree := writeTree(t, map[string][]byte{
		"kernel/net/virtio_net.ko.xz":  xzed(t, fakeModule("net-failover,virtio")),
		"kernel/net/net_failover.ko":   fakeModule("failover"),
		"kernel/net/failover.ko.zst":   zstded(t, fakeModule("")),
		"kernel/virtio/virtio-pci.ko":  fakeModule("virtio,virtio_ring"),
		"kernel/virtio/virtio_ring.ko": fakeModule(""),
		"kernel/other/other.ko":        fakeModule("virtio"),
		"modules.builtin":              []byte("kernel/virtio/virtio.ko\nkernel/fs/fs-x.ko\nkernel/fs/unasked.ko\n"),
		"build.tar.gz":                 nil,
	})
	c, err := tree.closure([]string{"virtio-pci", "virtio_net", "fs_x"})
	require.NoError(t, err)
	var names []string
	for _, m := range c.modules {
		names = append(names, m.name)
		require.Equal(t, fakeRelease, m.release)
		require.Equal(t, "\x7fELF", string(m.data[:4]), "%s is not compressed any more", m.path)
	}
	require.Equal(t, []string{"virtio_ring", "virtio_pci", "failover", "net_failover", "virtio_net"}, names)
	require.Equal(t, []string{"kernel/fs/fs-x.ko", "kernel/virtio/virtio.ko"}, c.builtin)
	require.Equal(t, `kernel/virtio/virtio_ring.ko:
kernel/virtio/virtio-pci.ko: kernel/virtio/virtio_ring.ko
kernel/net/failover.ko:
kernel/net/net_failover.ko: kernel/net/failover.ko
kernel/net/virtio_net.ko: kernel/net/net_failover.ko kernel/net/failover.ko
`, c.modulesDep())
}

func TestModulesTellWhichDevicesTheyDrive(t *testing.T) {
	tree := writeTree(t, map[string][]byte{
		"virtio-blk.ko": fakeModule("virtio\x00alias=virtio:d00000002v*\x00alias=virtio:d00000022v*"),
		"virtio.ko":     fakeModule(""),
	})
	c, err := tree.closure([]string{"virtio_blk"})
	require.NoError(t, err)
	require.Equal(t, "alias virtio:d00000002v* virtio_blk\nalias virtio:d00000022v* virtio_blk\n", c.modulesAlias())
}

func TestOptionalModulesAreThoseTheKernelHas(t *testing.T) {
	tree := writeTree(t, map[string][]byte{
		"a-b.ko":          fakeModule(""),
		"modules.builtin": []byte("kernel/c-d.ko\n"),
	})
	require.Equal(t, []string{"a_b", "c_d"}, tree.among([]string{"a-b", "nonesuch", "c_d"}))
}

func TestClosureFails(t *testing.T) {
	tree := writeTree(t, map[string][]byte{
		"a.ko": fakeModule("b"),
		"c.ko": []byte("no module"),
		"d.ko": fakeModule("d"), // it depends on itself

		"modules.builtin": []byte("kernel/e.ko\n"),
	})
	_, err := tree.closure([]string{"nonesuch"})
	require.EqualError(t, err, "module nonesuch is neither among the modules nor built into the kernel")
	_, err = tree.closure([]string{"a"})
	require.EqualError(t, err, "module b, which a needs, is neither among the modules nor built into the kernel")
	_, err = tree.closure([]string{"c"})
	require.ErrorContains(t, err, "c.ko: ")
	_, err = tree.closure([]string{"d"})
	require.NoError(t, err)
}

// Without a list of the built-in drivers, a driver that is no module may be built in. Modules name only modules among
// those that they need.
func TestClosureWithoutAListOfBuiltInDrivers(t *testing.T) {
	tree := writeTree(t, map[string][]byte{"a.ko": fakeModule(""), "b.ko": fakeModule("nonesuch")})
	c, err := tree.closure([]string{"a", "virtio_pci"})
	require.NoError(t, err)
	require.Len(t, c.modules, 1)
	require.Empty(t, c.builtin)
	_, err = tree.closure([]string{"b"})
	require.EqualError(t, err, "module nonesuch, which b needs, is neither among the modules nor built into the kernel")
}

func TestClosureChecksHashes(t *testing.T) {
	_, tested := fakeMirror(t)
	k, err := fetchKernel(t.Context(), fakeTarget, tested, Options{Cache: t.TempDir()})
	require.NoError(t, err)
	records, err := k.moduleRecords(fakeTarget, 62, Options{})
	require.NoError(t, err)
	require.Len(t, records, 6)

	_, err = k.moduleRecords(fakeTarget, 183, Options{})
	require.ErrorContains(t, err, "module virtio_net is for EM_X86_64, but the target is EM_AARCH64")

	require.NoError(t, os.WriteFile(filepath.Join(k.Modules, "kernel/drivers/net/virtio-net.ko"), fakeModule("evil"), 0o666))
	_, err = k.moduleRecords(fakeTarget, 62, Options{})
	require.ErrorContains(t, err, "its SHA-256 is")
}
