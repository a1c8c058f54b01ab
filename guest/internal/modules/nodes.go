package modules

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// MakeNodes makes the device nodes of modules that are not loaded, such as /dev/net/tun, as modules.devname lists
// them. When a program opens such a node, the kernel asks for its module. MakeNodes leaves nodes that exist as they are.
func MakeNodes() error {
	dir, err := directory()
	if err != nil {
		return err
	}
	return makeNodes(filepath.Join(dir, "modules.devname"), "/dev")
}

func makeNodes(list, dev string) error {
	var failed []error
	err := lines(list, func(line string) {
		// tun net/tun c10:200
		var module, name string
		var kind rune
		var major, minor uint32
		if _, err := fmt.Sscanf(line, "%s %s %c%d:%d", &module, &name, &kind, &major, &minor); err != nil {
			return // a comment
		}
		file, mode := filepath.Join(dev, name), uint32(unix.S_IFCHR|0o600)
		if kind == 'b' {
			mode = unix.S_IFBLK | 0o600
		}
		err := os.MkdirAll(filepath.Dir(file), 0o755)
		if err == nil {
			err = unix.Mknod(file, mode, int(unix.Mkdev(major, minor)))
		}
		if err != nil && !errors.Is(err, unix.EEXIST) {
			failed = append(failed, fmt.Errorf("device node %s: %w", file, err))
		}
	})
	return errors.Join(append(failed, err)...)
}
