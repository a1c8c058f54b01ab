package images

import (
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"guesthouse.example/internal/imagecache"
)

// The files of a directory of modules that depmod(8) writes, and that Debian's packages lack: on a Debian system
// the package's script calls depmod. A guest whose programs ask for modules needs them.
const (
	depFile   = "modules/modules.dep"
	aliasFile = "modules/modules.alias"
)

// indexModules writes the index of an unpacked kernel's modules and adds it to the kernel's manifest. A module that
// cannot be read, or that needs a missing one, is not in the index.
func indexModules(dir string, m *imagecache.Manifest) error {
	t, err := readTree(filepath.Join(dir, "modules"), nil, nil)
	if err != nil {
		return err
	}
	c := t.index()
	for name, text := range map[string]string{depFile: c.modulesDep(), aliasFile: c.modulesAlias()} {
		// Another process may read the directory, or write the same index.
		if err := writeWhole(filepath.Join(dir, name), []byte(text)); err != nil {
			return err
		}
		m.Files[name] = hashBytes([]byte(text))
	}
	return nil
}

// addIndex indexes the modules of a kernel that an earlier version of guesthouse has unpacked without one, and
// returns the kernel's manifest. In a cache that this process cannot write, the kernel stays without an index.
func addIndex(k imagecache.Kernel) imagecache.Manifest {
	if _, there := k.Manifest.Files[depFile]; there {
		return k.Manifest
	}
	tmp, err := os.MkdirTemp(k.Dir, "index-")
	if err != nil {
		return k.Manifest
	}
	defer os.RemoveAll(tmp)
	m := k.Manifest
	m.Files = maps.Clone(m.Files)
	if indexModules(k.Dir, &m) != nil || m.Write(tmp) != nil ||
		os.Rename(filepath.Join(tmp, imagecache.ManifestName), filepath.Join(k.Dir, imagecache.ManifestName)) != nil {
		return k.Manifest
	}
	return m
}

func writeWhole(file string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(file), filepath.Base(file)+"-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(data)
	if err == nil {
		err = f.Chmod(0o644)
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = os.Rename(f.Name(), file)
	}
	return err
}

// index returns all modules, each after the modules that it needs, without their data.
func (t *tree) index() *closure {
	var mu sync.Mutex
	read := make(map[string]module)
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0)) // some are compressed
	for name, rel := range t.modules {
		g.Go(func() error {
			if m, err := t.read(name); err == nil {
				m.data, m.path = nil, rel
				mu.Lock()
				defer mu.Unlock()
				read[name] = m
			}
			return nil
		})
	}
	_ = g.Wait() // No function returns an error.
	c := &closure{}
	state := make(map[string]bool) // whether a module that was visited is in the index
	var add func(name string) bool
	add = func(name string) bool {
		if is, visited := state[name]; visited {
			return is
		}
		state[name] = false // in a cycle
		m, ok := read[name]
		if !ok {
			_, builtIn := t.builtin[name]
			state[name] = builtIn
			return builtIn
		}
		for _, d := range m.depends {
			if !add(d) {
				return false
			}
		}
		state[name] = true
		c.modules = append(c.modules, m)
		return true
	}
	for _, name := range slices.Sorted(maps.Keys(read)) {
		add(name)
	}
	return c
}
