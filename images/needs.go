package images

import (
	"fmt"
	"strings"

	"guesthouse.example/internal/target"
)

// needs are the drivers without which a machine boots, and what then does not work.
var needs = []struct{ module, without string }{
	{"virtio_console", "the guest has no agent: no templates, no commands, no files, no exit status of its program, and no delivery of a program"},
	{"virtio_blk", "disks, copies of files and the delivery of a program do not work"},
	{"fuse", "directories of the host cannot be shared"},
	{"overlay", "no share can keep its changes in the guest"},
}

// check refuses a kernel without a driver that every machine needs, and logs what does not work for lack
// of another driver. It does not know the built-in drivers of a kernel without modules.builtin.
func (k Kernel) check(t target.Target, o Options) error {
	if k.Modules == "" {
		return nil
	}
	modules, err := readTree(k.Modules, k.files, o.inputs)
	if err != nil {
		return fail("use modules", k.Modules, err, "")
	}
	if len(modules.builtin) == 0 {
		return nil
	}
	var missing []string
	for _, name := range t.Modules {
		if len(modules.among([]string{name})) == 0 {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		return fail("use kernel", k.label(), fmt.Errorf("it has no %s, neither as a module nor built in", strings.Join(missing, " and no ")),
			"the machine's network card needs these drivers: use another kernel, or switch them on in the kernel's configuration")
	}
	if k.foreign(modules) {
		o.notice("%s: the modules in %s are for another kernel than %s: the guest has only the drivers that are built in",
			t.Name, k.Modules, k.Release)
	}
	for _, n := range needs {
		if len(modules.among([]string{n.module})) == 0 {
			o.notice("%s: the kernel %s has no %s: %s", t.Name, k.label(), n.module, n.without)
		}
	}
	return nil
}

// label names the kernel in a message.
func (k Kernel) label() string {
	switch {
	case k.Package != "":
		return k.Package + " " + k.Version
	case k.Release != "":
		return k.Release
	}
	return k.Path
}

// foreign reports whether the modules are of another release than the kernel, which then refuses them.
func (k Kernel) foreign(modules *tree) bool {
	release, err := modules.release()
	return err == nil && k.Release != "" && len(modules.modules) > 0 && release != k.Release
}
