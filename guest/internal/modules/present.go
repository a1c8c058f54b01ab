package modules

import (
	"path/filepath"
	"strings"
)

// present reports whether the kernel has a driver already, loaded or built in. The kernel shows each loaded
// module, each built-in one that has parameters, and each driver of a device. It shows a driver under its own
// name, which may have "-" where the module has "_".
func present(sys, name string) bool {
	name = underscored(name)
	places := []string{"module/" + name}
	for _, driver := range []string{name, strings.ReplaceAll(name, "_", "-")} {
		places = append(places, "bus/*/drivers/"+driver)
	}
	for _, place := range places {
		if found, _ := filepath.Glob(filepath.Join(sys, place)); len(found) > 0 {
			return true
		}
	}
	return false
}
