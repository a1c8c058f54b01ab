package images

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"
)

// deviceNodes returns the content of modules.devname as depmod(8) writes it: a line such as "tun net/tun c10:200"
// for each module whose device node a program opens before the module is loaded. The kernel then asks for the module.
// It reads them in modules.alias, and returns an empty text if there is none.
func (t *tree) deviceNodes() (string, error) {
	if t.files != nil {
		if _, there := t.files.Files[aliasFile]; !there {
			return "", nil // from a cache that an earlier version of guesthouse wrote, and that this one cannot change
		}
	}
	f, err := t.open(filepath.Base(aliasFile))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer f.Close()
	aliases, err := io.ReadAll(f)
	if err != nil {
		return "", err
	}
	names, numbers := map[string]string{}, map[string]string{} // of modules
	var modules []string
	for line := range strings.Lines(string(aliases)) {
		var alias, module string
		if _, err := fmt.Sscanf(line, "alias %s %s", &alias, &module); err != nil {
			continue
		}
		if name, ok := strings.CutPrefix(alias, "devname:"); ok {
			modules, names[module] = append(modules, module), name
			continue
		}
		for kind, letter := range map[string]string{"char-major-": "c", "block-major-": "b"} {
			var major, minor uint
			if _, err := fmt.Sscanf(alias, kind+"%d-%d", &major, &minor); err == nil {
				numbers[module] = fmt.Sprintf("%s%d:%d", letter, major, minor)
			}
		}
	}
	var b strings.Builder
	for _, module := range modules {
		if number, ok := numbers[module]; ok {
			fmt.Fprintf(&b, "%s %s %s\n", module, names[module], number)
		}
	}
	return b.String(), nil
}
