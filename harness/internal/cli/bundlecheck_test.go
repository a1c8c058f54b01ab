package cli

import (
	"archive/tar"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"

	"guesthouse.example/harness/harnesstest"
	"guesthouse.example/harness/internal/baremetal"
)

// A bundle may come from anybody. Its guest would read the files, and write to some of them.
func TestABundleOpensNoFileOfThisHost(t *testing.T) {
	for fields, what := range map[string]string{
		`"disks": [{"size_mib": 1}, {"file": "/etc/passwd", "format": "raw"}]`:                   `a disk with the file "/etc/passwd"`,
		`"disks": [{"file": "disk.img", "write": true}]`:                                         `a disk with the file "disk.img"`,
		`"initramfs": "initramfs", "share": [{"host": "/home", "guest": "/home", "mode": "rw"}]`: `the directory "/home" of its host`,
		`"initramfs": "initramfs", "share": [{"host": "\u001b[2J"}]`:                             `the directory "\x1b[2J" of its host`,
		`"board": "zephyr/qemu_x86_64"`:                                                          `the file "zephyr-qemu-main.elf" beside its image`,
		`"board": "acme/widget", "custom_board": {"name": "acme/widget", "machine": "pc", "cpu": "qemu32", "target": "x86", ` +
			`"memory_mib": 32, "card": "e1000", "load": "kernel", "ready": "x", "beside": ["` + sumOfX + `"]}`: `the file "` + sumOfX + `" beside its image`,
	} {
		cache, file := t.TempDir(), filepath.Join(t.TempDir(), "bundle")
		spec := `{"kernel": "kernel", "origin": {"kernel_sha256": "` + sumOfX + `"}, ` + fields + `}`
		require.NoError(t, os.WriteFile(file, archive(t, "spec.json", spec, "kernel", "x"), 0o600))
		status, _, stderr := call(t, "run", "-spec", file, "-cache", cache)
		require.Equal(t, 125, status, fields)
		require.Equal(t, "guesthouse: error: bundle "+file+": the recorded run had "+what+", which is not in the bundle, and a bundle opens no file of this host: "+
			"unpack the bundle with tar, check its spec.json, and give that file to run -spec there\n", stderr)
		left, err := filepath.Glob(filepath.Join(cache, "*", "*"))
		require.NoError(t, err)
		require.Empty(t, left, fields)
	}
}

// guesthouse bundle says which file of the run the bundle lacks. The unpacked bundle boots with that file.
func TestABundleOfARunWithADiskBootsUnpacked(t *testing.T) {
	harnesstest.Require(t, "x86")
	dir := t.TempDir()
	kernel, disk, record, file := filepath.Join(dir, "kernel"), filepath.Join(dir, "disk"), filepath.Join(dir, "record"), filepath.Join(dir, "bundle")
	image, err := baremetal.ELF("x86", "up")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(kernel, image, 0o644))
	require.NoError(t, os.WriteFile(disk, make([]byte, 512), 0o644))
	status, _, stderr := call(t, "run", "-board", "zephyr/qemu_x86", "-disk", disk, "-ready", "^up", "-cold", "-dir", record, kernel)
	require.Equal(t, 0, status, stderr)
	status, _, stderr = call(t, "bundle", "-o", file, record)
	require.Equal(t, 0, status)
	require.Equal(t, "guesthouse: note: the run had a disk with the file \""+disk+"\", which is not in the bundle, so run -spec refuses the bundle: there, "+unpackHint+"\n", stderr)

	elsewhere := stranger(t)
	_, stderr, err = elsewhere.run(t, "run", "-spec", file)
	require.Error(t, err)
	require.Contains(t, stderr, "the recorded run had a disk with the file")
	unpack(t, file, elsewhere.dir)
	require.NoError(t, os.Remove(kernel))
	stdout, stderr, err := elsewhere.run(t, "run", "-spec", "spec.json", "-cold")
	require.NoError(t, err, stderr)
	require.Contains(t, stdout, "up")
}

// unpack unpacks a bundle as tar does.
func unpack(t *testing.T, file, dir string) {
	t.Helper()
	f, err := os.Open(file)
	require.NoError(t, err)
	defer f.Close()
	z, err := zstd.NewReader(f)
	require.NoError(t, err)
	defer z.Close()
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if err == io.EOF {
			return
		}
		require.NoError(t, err)
		content, err := io.ReadAll(r)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(dir, filepath.Base(h.Name)), content, 0o600))
	}
}
