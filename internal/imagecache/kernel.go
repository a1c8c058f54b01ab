package imagecache

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"

	"guesthouse.example/internal/regular"
	"guesthouse.example/internal/store"
	"guesthouse.example/internal/testcache"
)

// KernelName is the name of a kernel in its directory.
const KernelName = "vmlinuz"

// A Kernel is an unpacked kernel in the cache.
type Kernel struct {
	Dir      string
	Set      KernelSet
	Tested   bool // lock.json names it
	Manifest Manifest
}

// Path returns the path of the kernel's file.
func (k Kernel) Path() string { return filepath.Join(k.Dir, KernelName) }

// Choice is the content of kernels/TARGET.json: the kernel that replaces the tested one. It is valid
// as long as lock.json still names Tested.
type Choice struct {
	Tested KernelSet `json:"tested"`
	Taken  KernelSet `json:"taken"`
}

// ChoicePath returns the path of the Choice of a target.
func (c *Cache) ChoicePath(target string) string { return c.Path(Kernels, target+".json") }

// Kernel returns the kernel of a target: the tested one, or the one that was chosen instead. Its
// error wraps fs.ErrNotExist if the cache has none; any other error means that it is damaged.
func (c *Cache) Kernel(target string, tested KernelSet) (Kernel, error) {
	k, err := c.OpenKernel(tested, tested)
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return k, err
	}
	file := c.ChoicePath(target)
	testcache.Depends(file)
	data, err := regular.ReadFile(file)
	if err != nil {
		return Kernel{}, err
	}
	var choice Choice
	if err := json.Unmarshal(data, &choice); err != nil {
		return Kernel{}, fmt.Errorf("%s: %w", filepath.Base(file), err)
	}
	if !slices.Equal(choice.Tested, tested) {
		return Kernel{}, fs.ErrNotExist // lock.json has changed since.
	}
	return c.OpenKernel(choice.Taken, tested)
}

// OpenKernel returns the kernel of a set and checks its hash.
func (c *Cache) OpenKernel(set, tested KernelSet) (Kernel, error) {
	if len(set) == 0 {
		return Kernel{}, fs.ErrNotExist
	}
	k := Kernel{Dir: c.Path(Kernels, set.Key()), Set: set, Tested: slices.Equal(set, tested)}
	var err error
	if k.Manifest, err = ReadManifest(k.Dir); err != nil {
		return Kernel{}, err
	}
	f, err := k.Manifest.Open(k.Dir, KernelName)
	if err != nil {
		return Kernel{}, err
	}
	f.Close()
	testcache.Depends(f.Name())
	store.Use(k.Dir)
	return k, nil
}
