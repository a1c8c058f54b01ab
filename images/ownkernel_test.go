package images

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"guesthouse.example/internal/target"
)

// bzImage returns the smallest file with the header of an x86 kernel of a release.
func bzImage(release string) []byte {
	b := make([]byte, 0x800)
	copy(b[0x202:], "HdrS")
	binary.LittleEndian.PutUint16(b[0x20e:], 0x400)
	copy(b[0x600:], release+" (builder@host) #1\x00")
	return b
}

func withFiles(t *testing.T, files map[string][]byte) (dir string) {
	dir = t.TempDir()
	for name, data := range files {
		file := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o777))
		require.NoError(t, os.WriteFile(file, data, 0o666))
	}
	return dir
}

func TestAKernelInADirectory(t *testing.T) {
	noApt(t)
	lib := func(dir, module, builtin string) map[string][]byte {
		return map[string][]byte{
			dir + "/kernel/net/virtio_net.ko": fakeModule(""),
			dir + "/modules.builtin":          []byte("kernel/drivers/virtio/virtio_pci.ko\n" + builtin),
		}
	}
	with := func(files map[string][]byte, name string, data []byte) map[string][]byte {
		files[name] = data
		return files
	}
	for name, c := range map[string]struct {
		files           map[string][]byte
		kernel, modules string
		release         string
	}{
		"an unpacked package": {with(lib("lib/modules/"+fakeRelease, "", ""), "boot/vmlinuz-"+fakeRelease, []byte("kernel")),
			"boot/vmlinuz-" + fakeRelease, "lib/modules/" + fakeRelease, fakeRelease},
		"beside the modules": {with(lib("usr/lib/modules/"+fakeRelease, "", ""), "usr/lib/modules/"+fakeRelease+"/vmlinuz", []byte("kernel")),
			"usr/lib/modules/" + fakeRelease + "/vmlinuz", "usr/lib/modules/" + fakeRelease, fakeRelease},
		"a Go module whose kernel has another release than its modules": {with(lib("lib/modules/7.1.3", "", "kernel/drivers/net/virtio_net.ko\n"), "vmlinuz", bzImage("7.1.2")),
			"vmlinuz", "lib/modules/7.1.3", "7.1.2"},
		"the kernel's own build": {map[string][]byte{"arch/x86/boot/bzImage": bzImage(fakeRelease), "modules.order": nil, "vmlinux": []byte("large"),
			"drivers/net/virtio_net.ko": fakeModule(""), "modules.builtin": []byte("drivers/virtio/virtio_pci.ko\n")},
			"arch/x86/boot/bzImage", ".", fakeRelease},
		"without modules": {map[string][]byte{"Image": []byte("kernel")}, "Image", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			dir := withFiles(t, c.files)
			k, err := FetchKernel(t.Context(), "x86_64", Options{Kernel: dir})
			require.NoError(t, err)
			require.Equal(t, filepath.Join(dir, c.kernel), k.Path)
			require.Equal(t, c.release, k.Release)
			if c.modules == "" {
				require.Empty(t, k.Modules)
			} else {
				require.Equal(t, filepath.Join(dir, c.modules), k.Modules)
			}
		})
	}
}

func TestADirectoryThatDoesNotNameOneKernel(t *testing.T) {
	arm64 := make([]byte, 0x100)
	copy(arm64[0x38:], "ARMd")
	for name, c := range map[string]struct {
		files map[string][]byte
		says  string
	}{
		"none":  {map[string][]byte{"README": nil}, "the directory has no kernel\nhint: it needs one of vmlinuz, "},
		"two":   {map[string][]byte{"boot/vmlinuz-1": bzImage("1"), "boot/vmlinuz-2": bzImage("2")}, "the directory has several kernels: "},
		"other": {map[string][]byte{"Image": arm64}, "this is an arm64 kernel; the target is x86_64"},
		"other modules": {map[string][]byte{"vmlinuz": bzImage("1"), "lib/modules/2/modules.builtin": nil, "lib/modules/3/modules.builtin": nil},
			"the kernel is 1, but the modules are in "},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := FetchKernel(t.Context(), "x86_64", Options{Kernel: withFiles(t, c.files)})
			require.ErrorContains(t, err, c.says)
		})
	}

	// A link to the kernel is not another kernel, and of two kernels the target has one.
	dir := withFiles(t, map[string][]byte{"boot/vmlinuz-1": bzImage("1"), "Image": arm64})
	require.NoError(t, os.Symlink("boot/vmlinuz-1", filepath.Join(dir, "vmlinuz")))
	k, err := FetchKernel(t.Context(), "arm64", Options{Kernel: filepath.Join(dir, "Image")})
	require.NoError(t, err)
	require.Empty(t, k.Modules)
	k, err = FetchKernel(t.Context(), "x86_64", Options{Kernel: dir})
	require.NoError(t, err)
	require.Equal(t, "1", k.Release)
}

func TestTheHostsKernel(t *testing.T) {
	var same target.Target
	for _, tg := range target.All() {
		if tg.GOARCH == runtime.GOARCH {
			same = tg
			continue
		}
		_, err := FetchKernel(t.Context(), tg.Name, Options{Kernel: "host"})
		require.ErrorContains(t, err, "this host is "+runtime.GOARCH+", and the target is "+tg.GOARCH)
	}
	lib := "lib/modules/" + fakeRelease + "/"
	files := map[string][]byte{
		"boot/vmlinuz-" + fakeRelease:     bytes.Repeat([]byte("kernel "), 100),
		"boot/vmlinuz-0.9":                bytes.Repeat([]byte("other "), 100),
		lib + "kernel/net/virtio_net.ko":  fakeModule(""),
		lib + "modules.builtin":           nil,
		"lib/modules/0.9/modules.builtin": nil,
	}
	root := withFiles(t, files)
	k, err := installedKernel(same, root, fakeRelease, Options{})
	require.NoError(t, err)
	require.Equal(t, filepath.Join(root, "boot/vmlinuz-"+fakeRelease), k.Path)
	require.Equal(t, filepath.Join(root, lib), k.Modules)
	require.Equal(t, fakeRelease, k.Release)

	_, err = installedKernel(same, root, "5.5", Options{})
	require.ErrorContains(t, err, "the host has no "+root+"/boot/vmlinuz-5.5, ")
	require.ErrorContains(t, err, "hint: a container")

	if os.Geteuid() != 0 { // root reads every file
		require.NoError(t, os.Chmod(k.Path, 0))
		_, err = installedKernel(same, root, fakeRelease, Options{})
		require.ErrorContains(t, err, "permission denied\nhint: some distributions make the kernel readable only for root: run sudo chmod +r "+k.Path)
	}
}

func TestWhatAKernelLacksIsSaid(t *testing.T) {
	var log bytes.Buffer
	builtin := func(names ...string) []byte {
		return []byte("kernel/" + strings.Join(names, ".ko\nkernel/") + ".ko\n")
	}
	kernel := func(names ...string) string {
		return withFiles(t, map[string][]byte{"vmlinuz": bzImage("5.5"), "lib/modules/5.5/modules.builtin": builtin(names...)})
	}
	_, err := FetchKernel(t.Context(), "x86_64", Options{Kernel: kernel("virtio_pci", "virtio_net", "virtio_console", "virtio_blk", "fuse", "overlay"), Log: &log})
	require.NoError(t, err)
	require.Empty(t, log.String())

	_, err = FetchKernel(t.Context(), "x86_64", Options{Kernel: kernel("virtio_pci", "virtio_net", "virtio_blk"), Log: &log})
	require.NoError(t, err)
	require.Equal(t, "guesthouse: x86_64: the kernel 5.5 has no virtio_console: the guest has no agent: no templates, no commands, no files, no exit status of its program, and no delivery of a program\n"+
		"guesthouse: x86_64: the kernel 5.5 has no fuse: directories of the host cannot be shared\n"+
		"guesthouse: x86_64: the kernel 5.5 has no overlay: no share can keep its changes in the guest\n", log.String())

	_, err = FetchKernel(t.Context(), "x86_64", Options{Kernel: kernel("virtio_blk"), Log: &log})
	require.ErrorContains(t, err, "use kernel 5.5: it has no virtio_pci and no virtio_net, neither as a module nor built in")
	require.ErrorContains(t, err, "hint: the machine's network card needs these drivers")
}
