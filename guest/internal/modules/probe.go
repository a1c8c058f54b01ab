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

// ErrMissing is wrapped by the error of Probe if the kernel has no such module.
var ErrMissing = errors.New("no such module")

// Probe loads the module of a name, or the modules of an alias, with all modules that they need. Parameters are
// those of the module, such as "numdummies=2". A module that is loaded or built in is no error. Several modules
// can have one alias, and some of them may be for devices that the machine lacks: Probe loads all that it can, and
// returns an error only if it can load none.
func Probe(name, parameters string) error {
	if parameters == "" && present("/sys", name) {
		return nil
	}
	dir, err := directory()
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return probe(dir, name, func(file string) error {
		f, err := os.Open(file)
		if err != nil {
			return err
		}
		defer f.Close()
		if underscored(file) != underscored(name) { // the parameters are those of the module that was asked for
			parameters = ""
		}
		if err := kmodule.FileInit(f, parameters, 0); err != nil && !errors.Is(err, unix.EEXIST) {
			return err
		}
		return nil
	})
}

// directory returns the directory of the running kernel's modules.
func directory() (string, error) {
	var kernel unix.Utsname
	if err := unix.Uname(&kernel); err != nil {
		return "", os.NewSyscallError("uname", err)
	}
	return path.Join("/lib/modules", unix.ByteSliceToString(kernel.Release[:])), nil
}

// probe calls load for the files of a module, or of each module of an alias, in the order in which they depend on
// each other.
func probe(dir, name string, load func(file string) error) error {
	if there, err := has(dir, "modules.builtin", name); there || err != nil {
		return err
	}
	files, err := dependencies(dir, name)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if len(files) > 0 {
		return loadAll(dir, files, load)
	}
	modules, err := aliased(dir, name)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	var loaded bool
	var failed []error
	for _, module := range modules {
		files, err := dependencies(dir, module)
		if err == nil && len(files) > 0 {
			err = loadAll(dir, files, load)
			loaded = loaded || err == nil
		}
		failed = append(failed, err)
	}
	if loaded {
		return nil
	}
	if err := errors.Join(failed...); err != nil {
		return err
	}
	return fmt.Errorf("%s: %w in %s", name, ErrMissing, dir)
}

// loadAll calls load for each file until one fails.
func loadAll(dir string, files []string, load func(file string) error) error {
	for _, file := range files {
		if err := load(filepath.Join(dir, file)); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
	}
	return nil
}

// underscored returns the kernel's name for a module or its file.
func underscored(file string) string {
	name, _, _ := strings.Cut(path.Base(file), ".ko")
	return strings.ReplaceAll(name, "-", "_")
}

// has reports whether a list of files names a module.
func has(dir, list, name string) (found bool, err error) {
	return found, lines(filepath.Join(dir, list), func(line string) {
		found = found || underscored(line) == underscored(name)
	})
}

// dependencies returns the file of a module after the files that it needs, each after those that it needs itself.
func dependencies(dir, name string) (files []string, err error) {
	err = lines(filepath.Join(dir, "modules.dep"), func(line string) {
		file, needs, ok := strings.Cut(line, ":")
		if !ok || underscored(file) != underscored(name) {
			return
		}
		// The kernel can load the files of a line from right to left.
		files = strings.Fields(needs)
		slices.Reverse(files)
		files = append(files, file)
	})
	return files, err
}

// aliased returns the modules that modules.alias names for an alias.
func aliased(dir, name string) (modules []string, err error) {
	err = lines(filepath.Join(dir, "modules.alias"), func(line string) {
		f := strings.Fields(line)
		if len(f) != 3 || f[0] != "alias" {
			return
		}
		// As depmod has it, an alias does not distinguish "-" from "_".
		if is, _ := path.Match(strings.ReplaceAll(f[1], "-", "_"), strings.ReplaceAll(name, "-", "_")); is {
			modules = append(modules, f[2])
		}
	})
	return modules, err
}

// lines calls f for every line of a file, and for none if the file is missing.
func lines(file string, f func(line string)) error {
	r, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer r.Close()
	s := bufio.NewScanner(r)
	for s.Scan() {
		f(s.Text())
	}
	return s.Err()
}
