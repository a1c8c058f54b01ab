package harness

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestLeftoversAreOurOrphans(t *testing.T) {
	proc := t.TempDir()
	process := func(pid, parent int, name string, args ...string) {
		dir := filepath.Join(proc, fmt.Sprint(pid))
		require.NoError(t, os.Mkdir(dir, 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(dir, "cmdline"), []byte(strings.Join(args, "\x00")+"\x00"), 0o644))
		require.NoError(t, os.WriteFile(filepath.Join(dir, "stat"), fmt.Appendf(nil, "%d (%s) S %d 1 1 0", pid, name, parent), 0o644))
	}
	ours := append([]string{"qemu-system-arm", "-S", "-m", "256"}, connectionArgs()...)
	process(1, 0, "init", "/sbin/init")
	process(50, 1, "systemd", "systemd", "--user")
	process(60, 1, "a) S 1 (test", "boot.test")
	process(70, 1, "qemu-system-arm", "qemu-system-arm", "-chardev", "socket,id=console,fd=3", "-serial", "chardev:console")
	process(71, 1, "qemu-system-arm", ours...)
	process(72, 50, "qemu-system-arm", append(ours, "-snapshot")...)
	process(73, 60, "qemu-system-arm", ours...)
	process(74, 9999, "qemu-system-arm", ours...)
	require.NoError(t, os.Mkdir(filepath.Join(proc, "80"), 0o755)) // has just ended
	require.NoError(t, os.Mkdir(filepath.Join(proc, "sys"), 0o755))
	pids, err := leftovers(proc)
	require.NoError(t, err)
	require.ElementsMatch(t, []int{71, 72}, pids)
}
