package cli

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"guesthouse.example/harness/harnesstest"
	"guesthouse.example/harness/internal/baremetal"
)

// A build directory of west needs no flags.
func TestRunUnderstandsABuildDirectory(t *testing.T) {
	harnesstest.Require(t, "x86")
	dir := t.TempDir()
	zephyr := filepath.Join(dir, "zephyr")
	require.NoError(t, os.Mkdir(zephyr, 0o755))
	command := "/usr/bin/qemu-system-i386 -m 16 -cpu qemu32,+nx,+pae,sse -machine q35 -nographic -kernel /elsewhere/build/zephyr/zephyr.elf"
	for name, text := range map[string]string{
		"zephyr/.config": "CONFIG_BOARD=\"qemu_x86\"\n",
		"build.ninja":    "build zephyr/CMakeFiles/run_qemu: CUSTOM_COMMAND zephyr/zephyr.elf\n  COMMAND = cd " + dir + " && " + command + "\n",
	} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
	}
	status, _, stderr := call(t, "run", dir)
	require.Equal(t, 125, status)
	require.Contains(t, stderr, "no such file "+filepath.Join(zephyr, "zephyr.elf")+": build it with west build -d "+dir)

	guest, err := baremetal.ELF("x86", "*** Booting Zephyr OS build bare ***")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(zephyr, "zephyr.elf"), guest, 0o644))
	status, stdout, stderr := call(t, "run", "-cold", dir)
	require.Equal(t, 0, status, stderr)
	require.Contains(t, stdout, "*** Booting Zephyr OS build bare ***")
	require.Contains(t, stderr, "guesthouse: zephyr/qemu_x86 ready in ")

	status, stdout, stderr = call(t, "run", "-n", "-cpu", "max", dir)
	require.Equal(t, 0, status, stderr)
	require.Contains(t, stdout, " -machine q35,accel=tcg -cpu max -m 16 ", "a flag comes before the build directory")
	require.Contains(t, stderr, "guesthouse: note: in "+dir+", west build -t run starts: "+command+"\n")

	status, _, stderr = call(t, "run", filepath.Join(zephyr, "zephyr.elf"))
	require.Equal(t, 125, status)
	require.Contains(t, stderr, "name its board with -board, or give the build directory of west")
}

// A file describes a board that guesthouse does not have. The record of the run has the board too.
func TestRunUnderstandsABoardOfTheUsersOwn(t *testing.T) {
	harnesstest.Require(t, "x86")
	dir := t.TempDir()
	image, record := filepath.Join(dir, "build", "image"), filepath.Join(t.TempDir(), "record")
	require.NoError(t, os.Mkdir(filepath.Dir(image), 0o755))
	guest, err := baremetal.ELF("x86", "widget ready")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(image, guest, 0o644))
	status, _, stderr := call(t, "run", "-board", "acme/widget", image)
	require.Equal(t, 125, status)
	require.Contains(t, stderr, `unknown board "acme/widget": the boards are `)
	require.Contains(t, stderr, "; describe another in a file boards.toml in the directory of the image or above it")

	boards := filepath.Join(dir, "boards.toml")
	require.NoError(t, os.WriteFile(boards, []byte("[[board]]\nname = \"acme/widget\"\nlike = \"zephyr/qemu_x86\"\nmemory = 24\nready = \"^widget ready$\"\n"), 0o644))
	status, stdout, stderr := call(t, "run", "-cold", "-board", "acme/widget", "-dir", record, image)
	require.Equal(t, 0, status, stderr)
	require.Contains(t, stdout, "widget ready")
	require.Contains(t, stderr, "guesthouse: acme/widget ready in ")
	status, _, stderr = call(t, "run", "-board", "acme/other", image)
	require.Equal(t, 125, status)
	require.Contains(t, stderr, "; "+boards+" describes others")

	require.NoError(t, os.Remove(boards))
	status, stdout, stderr = call(t, "run", "-n", "-spec", filepath.Join(record, "spec.json"))
	require.Equal(t, 0, status, stderr)
	require.Contains(t, stdout, " -machine q35,accel=tcg -cpu qemu32,+nx,+pae -m 24 ")
}
