package imagecache

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"guesthouse.example/internal/regular"
	"guesthouse.example/internal/store"
	"guesthouse.example/internal/sys"
	"guesthouse.example/internal/testcache"
)

// KernelName is the name of a kernel in its directory.
const KernelName = "vmlinuz"

// A Kernel is an unpacked kernel in the cache.
type Kernel struct {
	Dir      string
	Set      KernelSet
	Tested   bool // lock.json or gokrazy.json names it
	Manifest Manifest
}

// Path returns the path of the kernel's file.
func (k Kernel) Path() string { return filepath.Join(k.Dir, KernelName) }

// Choice is the content of kernels/TARGET.json, the kernel that replaces the tested one, and of
// kernels/PACKAGE@TARGET.json, the kernel of a package that a user has named. The first is valid as long
// as lock.json still names Tested.
type Choice struct {
	Tested KernelSet `json:"tested"`
	Taken  KernelSet `json:"taken"`
}

// ChoicePath returns the path of the Choice of a target.
func (c *Cache) ChoicePath(target string) string { return c.Path(Kernels, target+".json") }

// PackagePath returns the path of the Choice for a package that a user has named. An empty version means
// the one that was the newest.
func (c *Cache) PackagePath(target, name, version string) string {
	if version != "" {
		name += "=" + version
	}
	return c.Path(Kernels, name+ofTarget+target+choiceExt)
}

const (
	ofTarget  = "@" // in no name and no version of a package
	choiceExt = ".json"
)

// Kernel returns the kernel of a target: the tested one, or the one that was chosen instead. Its
// error wraps fs.ErrNotExist if the cache has none; any other error means that it is damaged.
func (c *Cache) Kernel(target string, tested KernelSet) (Kernel, error) {
	k, err := c.OpenKernel(tested, tested)
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return k, err
	}
	choice, err := readChoice(c.ChoicePath(target))
	if err != nil {
		return Kernel{}, err
	}
	if !slices.Equal(choice.Tested, tested) {
		return Kernel{}, fs.ErrNotExist // lock.json has changed since.
	}
	return c.OpenKernel(choice.Taken, tested)
}

// PackagedKernel returns the kernel that was fetched for a package that a user has named. Its error is
// like that of Kernel.
func (c *Cache) PackagedKernel(target, name, version string, tested KernelSet) (Kernel, error) {
	choice, err := readChoice(c.PackagePath(target, name, version))
	if err != nil {
		return Kernel{}, err
	}
	return c.OpenKernel(choice.Taken, tested)
}

func readChoice(file string) (choice Choice, err error) {
	testcache.Depends(file)
	data, err := regular.ReadFile(file)
	if err != nil {
		return choice, err
	}
	if err := json.Unmarshal(data, &choice); err != nil {
		return choice, fmt.Errorf("%s: %w", filepath.Base(file), err)
	}
	return choice, nil
}

// NamedKernels returns the names of the packages for which users have fetched kernels of a target, such as
// linux-image-rt-arm64 or linux-image-rt-arm64=6.1.192-3, with the kernels.
func (c *Cache) NamedKernels(target string) map[string]KernelSet {
	named := map[string]KernelSet{}
	for _, e := range c.store.Entries(Kernels) {
		name, ok := strings.CutSuffix(e.Name, ofTarget+target+choiceExt)
		if !ok {
			continue
		}
		if choice, err := readChoice(e.Path); err == nil && len(choice.Taken) > 0 {
			named[name] = choice.Taken
		}
	}
	return named
}

// HasKernel reports whether the cache has the kernel that Kernel returns. It does not read the kernel.
func (c *Cache) HasKernel(target string, tested KernelSet) bool {
	if len(tested) > 0 && c.has(tested) {
		return true
	}
	choice, err := readChoice(c.ChoicePath(target))
	return err == nil && slices.Equal(choice.Tested, tested) && len(choice.Taken) > 0 && c.has(choice.Taken)
}

func (c *Cache) has(set KernelSet) bool {
	_, err := ReadManifest(c.Path(Kernels, set.Key()))
	return err == nil
}

// RemoveKernels removes all kernels except those that a build uses if no kernel is named, and gokrazy's tested
// ones. A machine that is about to boot may lose its kernel.
func (c *Cache) RemoveKernels(ctx context.Context) error {
	const step = "remove kernels"
	b, err := c.Build(ctx, "remove-kernels")
	if err != nil {
		return Fail(step, c.Path(), err, "")
	}
	defer b.Close()
	lock, err := readLock()
	if err != nil {
		return Fail(step, c.Path(), err, "")
	}
	gokrazy, err := readGokrazy()
	if err != nil {
		return Fail(step, c.Path(), err, "")
	}
	kept := map[string]bool{}
	for _, tested := range gokrazy {
		kept[tested.Key()] = true
	}
	for target, tested := range lock {
		kept[tested.Key()] = true
		file := c.ChoicePath(target)
		if choice, err := readChoice(file); err == nil && slices.Equal(choice.Tested, tested) {
			kept[choice.Taken.Key()], kept[filepath.Base(file)] = true, true
		}
	}
	for _, e := range c.store.Entries(Kernels) {
		if kept[e.Name] {
			continue
		}
		if err := c.store.Remove(e.Path); err != nil {
			return Fail(step, c.Path(), err, "")
		}
	}
	return nil
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

// Holds returns the path of the kernel of a set and the bytes that its directory takes on the disk, if the
// cache has it. It does not read the files.
func (c *Cache) Holds(set KernelSet) (path string, bytes int64, ok bool) {
	if len(set) == 0 {
		return "", 0, false
	}
	k := Kernel{Dir: c.Path(Kernels, set.Key())}
	if _, err := ReadManifest(k.Dir); err != nil {
		return "", 0, false
	}
	return k.Path(), sys.DiskUsage(k.Dir), true
}
