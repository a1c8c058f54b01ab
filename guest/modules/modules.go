// Package modules loads the drivers of the machine's devices.
package modules

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/u-root/u-root/pkg/kmodule"
)

// File lists the kernel modules to load. It is in the initramfs of every
// guest and nowhere else, and so marks the machine too.
const File = "/etc/modules-load.d/guesthouse.conf"

// Load loads the kernel modules that a file names, one a line, each
// after those it depends on. Modules that are loaded already, or that the kernel has built in, are
// fine. After one that cannot be loaded it goes on with the others.
func Load(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return fmt.Errorf("kernel modules: %w", err)
	}
	defer f.Close()
	var prober *kmodule.Prober // a kernel without modules has no list of them
	var errs []error
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		name := strings.TrimSpace(lines.Text())
		if name == "" || strings.HasPrefix(name, "#") {
			continue
		}
		if prober == nil {
			if prober, err = kmodule.NewProber(kmodule.ProbeOpts{}); err != nil {
				return fmt.Errorf("kernel module %s: %w", name, err)
			}
		}
		if err := prober.Probe(name, ""); err != nil {
			errs = append(errs, fmt.Errorf("kernel module %s: %w", name, err))
		}
	}
	return errors.Join(append(errs, lines.Err())...)
}
