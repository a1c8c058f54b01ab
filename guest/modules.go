package guest

import (
	"bufio"
	"fmt"
	"os"
	"strings"

	"github.com/u-root/u-root/pkg/kmodule"
)

// loadModules loads the kernel modules that a file names, one a line, each
// after those it depends on. Modules that the kernel has built in are fine.
func loadModules(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return fmt.Errorf("kernel modules: %w", err)
	}
	defer f.Close()
	var prober *kmodule.Prober // a kernel without modules has no list of them
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
			return fmt.Errorf("kernel module %s: %w", name, err)
		}
	}
	return lines.Err()
}
