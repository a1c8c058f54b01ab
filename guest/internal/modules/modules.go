// Package modules loads the kernel modules of the machine's devices.
package modules

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/u-root/u-root/pkg/kmodule"
	"golang.org/x/sys/unix"
)

// Load loads the kernel modules that a file names, one a line, and then the modules of the machine's
// other virtio devices, each with its dependencies. It skips drivers that are already there, loaded or
// built into the kernel. If a module cannot be loaded, Load still loads the others, and returns an error.
func Load(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return fmt.Errorf("kernel modules: %w", err)
	}
	defer f.Close()
	var p prober
	var errs []error
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if name := strings.TrimSpace(lines.Text()); name != "" && !strings.HasPrefix(name, "#") {
			errs = append(errs, p.load(name))
		}
	}
	errs = append(errs, lines.Err())
	var kernel unix.Utsname
	if err := unix.Uname(&kernel); err != nil {
		return errors.Join(append(errs, os.NewSyscallError("uname", err))...)
	}
	for _, name := range forDevices("/sys", path.Join("/lib/modules", unix.ByteSliceToString(kernel.Release[:]), "modules.alias")) {
		errs = append(errs, p.load(name))
	}
	return errors.Join(errs...)
}

// LoadFileSystem loads the kernel module of a file system, unless the kernel has the file system already.
func LoadFileSystem(name string) error {
	list, err := os.ReadFile("/proc/filesystems")
	if err != nil {
		return err
	}
	if slices.Contains(strings.Fields(string(list)), name) {
		return nil
	}
	return new(prober).load(name)
}

// A prober reads the kernel's list of modules only for a driver that is missing, because a kernel with all
// drivers built in has no list, or one under another release.
type prober struct{ *kmodule.Prober }

func (p *prober) load(name string) (err error) {
	if present("/sys", name) {
		return nil
	}
	if p.Prober == nil {
		p.Prober, err = kmodule.NewProber(kmodule.ProbeOpts{})
	}
	if err == nil {
		err = p.Probe(name, "")
	}
	if err != nil {
		return fmt.Errorf("kernel module %s: %w", name, err)
	}
	return nil
}

// forDevices returns the modules for the virtio devices that have no driver yet, according to the file
// aliases, a modules.alias. It returns none if the file is missing, as for a kernel without modules.
func forDevices(sys, aliases string) (names []string) {
	list, err := os.ReadFile(aliases)
	if err != nil {
		return nil
	}
	files, _ := filepath.Glob(filepath.Join(sys, "bus/virtio/devices/*/modalias"))
	for _, file := range files {
		if _, err := os.Lstat(filepath.Join(filepath.Dir(file), "driver")); !errors.Is(err, fs.ErrNotExist) {
			continue
		}
		device, err := os.ReadFile(file)
		if err != nil {
			continue // the device is gone
		}
		for line := range strings.Lines(string(list)) {
			// alias virtio:d00000002v* virtio_blk
			f := strings.Fields(line)
			if len(f) != 3 || f[0] != "alias" || slices.Contains(names, f[2]) {
				continue
			}
			if drives, _ := path.Match(f[1], strings.TrimSpace(string(device))); drives {
				names = append(names, f[2])
			}
		}
	}
	return names
}
