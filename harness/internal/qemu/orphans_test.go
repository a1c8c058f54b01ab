package qemu

import (
	"testing"

	"github.com/stretchr/testify/require"

	"guesthouse.example/internal/sys"
)

func TestOrphansAreAdoptedQEMUsWithOurConnections(t *testing.T) {
	var all []sys.Process
	args := make(map[int][]string)
	process := func(pid, parent int, name string, words ...string) {
		all = append(all, sys.Process{PID: pid, Name: name, Parent: parent})
		args[pid] = words
	}
	marked := append([]string{"qemu-system-arm", "-S", "-m", "256"}, Machine{}.connectionArgs()...)
	process(1, 0, "init", "/sbin/init")
	process(50, 1, "systemd", "systemd", "--user")
	process(60, 1, "boot.test", "boot.test")
	process(70, 1, "qemu-system-arm", "qemu-system-arm", "-chardev", "socket,id=console,fd=3", "-serial", "chardev:console")
	process(71, 1, "qemu-system-arm", marked...)
	process(72, 50, "qemu-system-arm", append(marked, "-snapshot")...)
	process(73, 60, "qemu-system-arm", marked...)
	process(74, 9999, "qemu-system-arm", marked...)
	process(75, 1, "qemu-system-arm") // has just ended
	require.Equal(t, []int{71, 72}, orphans(all, func(pid int) []string { return args[pid] }))
}
