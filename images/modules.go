package images

import (
	"bytes"
	"compress/gzip"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"guesthouse.example/internal/imagecache"
	"guesthouse.example/internal/regular"
)

// A tree is a directory of kernel modules. It needs no modules.dep, which Debian's
// packages do not have: each module says itself which modules it depends on.
type tree struct {
	dir     string
	files   *imagecache.Manifest // the hashes; nil if they are unknown
	inputs  *inputs
	modules map[string]string // name → path in dir
	builtin map[string]string // name → line of modules.builtin
}

// moduleName returns the kernel's name for the module in a file. The kernel does
// not distinguish "-" from "_".
func moduleName(file string) string {
	name, _, ok := strings.Cut(filepath.Base(file), ".ko")
	if !ok {
		return ""
	}
	return strings.ReplaceAll(name, "-", "_")
}

func readTree(dir string, files *imagecache.Manifest, in *inputs) (*tree, error) {
	t := &tree{dir: dir, files: files, inputs: in, modules: map[string]string{}, builtin: map[string]string{}}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			if files == nil {
				in.depends(path)
			}
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		switch ext := filepath.Ext(path); ext {
		case ".ko", ".xz", ".zst", ".gz":
			if name := moduleName(path); name != "" {
				t.modules[name] = rel
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	f, err := t.open("modules.builtin")
	if errors.Is(err, fs.ErrNotExist) {
		return t, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	list, err := io.ReadAll(f)
	if err != nil {
		return nil, err
	}
	for _, line := range strings.Fields(string(list)) {
		t.builtin[moduleName(line)] = line
	}
	return t, nil
}

func (t *tree) open(rel string) (*os.File, error) {
	if t.files == nil {
		t.inputs.depends(filepath.Join(t.dir, rel))
		return regular.Open(filepath.Join(t.dir, rel))
	}
	return t.files.Open(filepath.Dir(t.dir), filepath.Join(filepath.Base(t.dir), rel))
}

// A module is one driver. It is uncompressed, because decompression on an emulated
// processor takes longer than the loading of a larger file.
type module struct {
	name    string // virtio_net
	path    string // kernel/drivers/net/virtio_net.ko
	data    []byte
	depends []string // the names of the modules that it needs
	aliases []string // patterns of the devices that it drives, such as virtio:d00000002v*
	release string   // of the kernel that it is made for
	machine elf.Machine
}

func (t *tree) read(name string) (module, error) {
	rel := t.modules[name]
	f, err := t.open(rel)
	if err != nil {
		return module{}, err
	}
	defer f.Close()
	data, err := uncompressed(f)
	if err != nil {
		return module{}, fmt.Errorf("%s: %w", rel, err)
	}
	m := module{name: name, path: rel[:strings.LastIndex(rel, ".ko")] + ".ko", data: data}
	if err := m.parse(); err != nil {
		return module{}, fmt.Errorf("%s: %w", rel, err)
	}
	return m, nil
}

// uncompressed reads a file to its end. The extension of its name says how it is compressed.
func uncompressed(f *os.File) ([]byte, error) {
	var r io.Reader = f
	var err error
	switch filepath.Ext(f.Name()) {
	case ".xz":
		r, err = xz.NewReader(f)
	case ".gz":
		r, err = gzip.NewReader(f)
	case ".zst":
		var z *zstd.Decoder
		if z, err = zstd.NewReader(f); err == nil {
			defer z.Close()
			r = z
		}
	}
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

// parse reads the section .modinfo, in which the module describes itself with strings
// "key=value" that end in NUL. Source: include/linux/module.h of Linux.
func (m *module) parse() error {
	f, err := elf.NewFile(bytes.NewReader(m.data))
	if err != nil {
		return err
	}
	m.machine = f.Machine
	s := f.Section(".modinfo")
	if s == nil {
		return errors.New("not a kernel module: it has no .modinfo")
	}
	info, err := s.Data()
	if err != nil {
		return err
	}
	for _, entry := range strings.Split(string(info), "\x00") {
		key, value, _ := strings.Cut(entry, "=")
		switch key {
		case "depends":
			for _, d := range strings.Split(value, ",") {
				if d != "" {
					m.depends = append(m.depends, strings.ReplaceAll(d, "-", "_"))
				}
			}
		case "alias":
			m.aliases = append(m.aliases, value)
		case "vermagic":
			m.release, _, _ = strings.Cut(value, " ")
		}
	}
	slices.Sort(m.depends)
	return nil
}

// release returns the release of the kernel that the modules are made for.
func (t *tree) release() (string, error) {
	if len(t.modules) > 0 {
		// All modules of a directory are of one release: the kernel refuses others.
		m, err := t.read(slices.Min(slices.Collect(maps.Keys(t.modules))))
		if err == nil && m.release == "" {
			err = fmt.Errorf("%s: it names no kernel release", m.path)
		}
		return m.release, err
	}
	if len(t.builtin) > 0 {
		// "make modules_install" names the directory after the release.
		return filepath.Base(t.dir), nil
	}
	return "", errors.New("the directory has no kernel modules")
}

// A closure is a set of modules with all modules that they depend on.
type closure struct {
	modules []module // each after the modules that it depends on
	builtin []string // lines of modules.builtin, for modules that are not loaded
}

// among returns those of the names whose modules exist or are built into the kernel.
func (t *tree) among(names []string) (there []string) {
	for _, name := range names {
		name = strings.ReplaceAll(name, "-", "_")
		_, isModule := t.modules[name]
		_, isBuiltin := t.builtin[name]
		if isModule || isBuiltin {
			there = append(there, name)
		}
	}
	return there
}

// closure returns the closure of the wanted modules. A module that neither exists nor
// is built into the kernel is an error. If there is no list of the built-in ones, a
// wanted module that does not exist may be one of them: the guest sees whether its
// kernel has it.
func (t *tree) closure(wanted []string) (*closure, error) {
	c := &closure{}
	seen := map[string]bool{}
	var add func(name, whose string) error
	add = func(name, whose string) error {
		if seen[name] {
			return nil
		}
		seen[name] = true
		if _, ok := t.modules[name]; !ok {
			if line, ok := t.builtin[name]; ok {
				c.builtin = append(c.builtin, line)
				return nil
			}
			if len(t.builtin) == 0 && whose == "" {
				return nil
			}
			return fmt.Errorf("module %s%s is neither among the modules nor built into the kernel", name, whose)
		}
		m, err := t.read(name)
		if err != nil {
			return err
		}
		for _, d := range m.depends {
			if err := add(d, ", which "+name+" needs,"); err != nil {
				return err
			}
		}
		c.modules = append(c.modules, m)
		return nil
	}
	for _, name := range wanted {
		if err := add(strings.ReplaceAll(name, "-", "_"), ""); err != nil {
			return nil, err
		}
	}
	slices.Sort(c.builtin)
	return c, nil
}

// modulesAlias returns the content of modules.alias as depmod(8) writes it.
func (c *closure) modulesAlias() string {
	var b strings.Builder
	for _, m := range c.modules {
		for _, alias := range m.aliases {
			b.WriteString("alias " + alias + " " + m.name + "\n")
		}
	}
	return b.String()
}

// modulesDep returns the content of modules.dep as depmod(8) writes it. Each line has
// a module and all modules that it depends on, directly or not. The kernel can load
// the modules of a line from right to left.
func (c *closure) modulesDep() string {
	index := map[string]int{}
	for i, m := range c.modules {
		index[m.name] = i
	}
	var b strings.Builder
	for _, m := range c.modules {
		needs := make([]bool, len(c.modules))
		var mark func(module)
		mark = func(m module) {
			for _, d := range m.depends {
				// A module that is built in has no index.
				if i, ok := index[d]; ok && !needs[i] {
					needs[i] = true
					mark(c.modules[i])
				}
			}
		}
		mark(m)
		// u-root's kmodule takes a blank after the colon for a name.
		b.WriteString(m.path + ":")
		for i := len(needs) - 1; i >= 0; i-- {
			if needs[i] {
				b.WriteString(" " + c.modules[i].path)
			}
		}
		b.WriteString("\n")
	}
	return b.String()
}
