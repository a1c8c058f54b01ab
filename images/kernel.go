package images

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"

	"guesthouse.example/internal/imagecache"
	"guesthouse.example/internal/store"
	"guesthouse.example/internal/target"
)

// A Kernel is a kernel file and its modules.
type Kernel struct {
	Target string

	// Path is the path of the kernel file, and SHA256 its hash in hexadecimal.
	Path, SHA256 string

	// Modules is the directory of the modules, in the layout of
	// /lib/modules/RELEASE. It is empty for your own kernel without modules.
	Modules string

	// Release is the kernel's release, as "uname -r" prints it. If the file of your
	// own kernel does not tell, it is the release that the modules are made for, or
	// empty without modules.
	Release string

	// Package and Version name the Debian package or gokrazy's module. Tested
	// reports that guesthouse was tested with exactly this one. All are zero for
	// your own kernel.
	Package, Version string
	Tested           bool

	files *imagecache.Manifest // the hashes of the modules; nil for the user's own kernel
}

func (k Kernel) image() Image {
	return Image{
		Target: k.Target, Kernel: k.Path, KernelSHA256: k.SHA256, Modules: k.Modules, Release: k.Release,
		KernelPackage: k.Package, KernelVersion: k.Version,
	}
}

// FetchKernel returns the kernel of a target that [Options.Kernel] names. A Debian
// kernel comes from the cache, which needs neither apt nor a network, or else from
// apt. A kernel of gokrazy comes from the cache too, or else from the go command's
// module proxy.
//
// For "debian", FetchKernel fetches the package with which this version of
// guesthouse was tested. If the apt sources no longer offer that package,
// FetchKernel fetches the newest one that they offer and logs that. The cache
// keeps this choice until a version of guesthouse that was tested with another
// package uses the cache. A package that you name stays in the cache too, so its
// newer versions are fetched only after "guesthouse kernels -clear".
//
// If the kernel lacks a driver without which a part of guesthouse does not work,
// FetchKernel logs which part that is.
func FetchKernel(ctx context.Context, targetName string, o Options) (Kernel, error) {
	t, err := target.Lookup(targetName)
	if err != nil {
		return Kernel{}, err
	}
	k, err := namedKernel(ctx, t, o)
	if err == nil && !k.Tested {
		err = k.check(t, o)
	}
	return k, err
}

func fetchKernel(ctx context.Context, t target.Target, tested imagecache.KernelSet, o Options) (Kernel, error) {
	offer := aptOffer{
		choose: func(ctx context.Context, a *apt) (imagecache.KernelSet, error) {
			if ok, err := a.offers(ctx, tested); ok || err != nil {
				return tested, err
			}
			return a.resolve(ctx, t.KernelPackage, "")
		},
		why: func(set imagecache.KernelSet) string {
			switch {
			case slices.Equal(set, tested):
				return ""
			case len(tested) == 0:
				return "; guesthouse was tested with no kernel for this target"
			}
			return fmt.Sprintf(" instead of the tested %v, which apt's sources no longer offer", tested[0])
		},
		choice: func(c *imagecache.Cache, set imagecache.KernelSet) string {
			if slices.Equal(set, tested) {
				return ""
			}
			return c.ChoicePath(t.Name)
		},
	}
	return fetched(ctx, t, tested, o, fetching{
		inputs: func(c *imagecache.Cache) []string {
			// A tested kernel that appears counts before a choice. Its hashes fix the rest of its directory.
			return []string{c.Path(imagecache.Kernels, tested.Key(), imagecache.ManifestName), c.ChoicePath(t.Name)}
		},
		cached:      func(c *imagecache.Cache) (imagecache.Kernel, error) { return c.Kernel(t.Name, tested) },
		fetch:       offer.fetch(t, tested, o),
		unreachable: aptHint,
		missing:     "check that apt's sources are Debian's and not limited to other architectures, or " + ownKernelHint,
	})
}

// fetchPackage returns the kernel of a package, or of the packages that it depends on. An empty version
// means the newest one.
func fetchPackage(ctx context.Context, t target.Target, tested imagecache.KernelSet, name, version string, o Options) (Kernel, error) {
	offer := aptOffer{
		choose: func(ctx context.Context, a *apt) (imagecache.KernelSet, error) { return a.resolve(ctx, name, version) },
		why:    func(imagecache.KernelSet) string { return "" },
		choice: func(c *imagecache.Cache, _ imagecache.KernelSet) string { return c.PackagePath(t.Name, name, version) },
	}
	return fetched(ctx, t, tested, o, fetching{
		inputs: func(c *imagecache.Cache) []string { return []string{c.PackagePath(t.Name, name, version)} },
		cached: func(c *imagecache.Cache) (imagecache.Kernel, error) {
			return c.PackagedKernel(t.Name, name, version, tested)
		},
		fetch:       offer.fetch(t, tested, o),
		unreachable: aptHint,
		missing:     "list the packages with: guesthouse kernels -all -target " + t.Name,
	})
}

// A fetching is what differs between the kernels that a name can lead to.
type fetching struct {
	inputs func(*imagecache.Cache) []string // the files that decide what is cached
	cached func(*imagecache.Cache) (imagecache.Kernel, error)

	// fetch publishes the kernel in the cache. Its files are built in a directory of the cache.
	fetch func(context.Context, *imagecache.Cache, *store.Build) (imagecache.KernelSet, error)

	unreachable, missing string // the hints if the download fails, and if apt offers no such package
}

// fetched returns a kernel from the cache, or fetches it.
func fetched(ctx context.Context, t target.Target, tested imagecache.KernelSet, o Options, f fetching) (Kernel, error) {
	const step = "fetch kernel"
	c, err := openCache(o)
	if err != nil {
		return Kernel{}, err
	}
	o.inputs.add(false, f.inputs(c)...)
	k, err := f.cached(c)
	if err == nil {
		return cachedKernel(t, k), nil
	}
	b, err := c.Build(ctx, "kernel-"+t.Name)
	if err != nil {
		return Kernel{}, fail(step, t.Name, err, "")
	}
	defer b.Close()
	// Another process may have fetched the kernel while this one waited for the lock.
	k, err = f.cached(c)
	if err == nil {
		return cachedKernel(t, k), nil
	}
	damage := err
	if errors.Is(damage, fs.ErrNotExist) {
		damage = nil
	} else {
		o.notice("%s: the cached kernel is damaged (%v), fetching it again", t.Name, damage)
	}
	set, err := f.fetch(ctx, c, b)
	if err == nil {
		k, err = c.OpenKernel(set, tested)
	}
	if err != nil {
		hint := f.unreachable
		var mismatch *mismatchError
		var missing *missingError
		switch {
		case errors.As(err, &mismatch):
			hint = "the file was altered on the mirror or on its way: try again or use another mirror; guesthouse has not kept the file"
		case errors.As(err, &missing):
			hint = f.missing
		}
		if damage != nil {
			err = fmt.Errorf("the cached kernel is damaged (%v), and fetching it again failed: %w", damage, err)
		}
		return Kernel{}, fail(step, t.Name, err, hint)
	}
	c.Prune(imagecache.Kernels)
	return cachedKernel(t, k), nil
}

func cachedKernel(t target.Target, k imagecache.Kernel) Kernel {
	k.Manifest = addIndex(k)
	return Kernel{
		Target: t.Name, Path: k.Path(), SHA256: k.Manifest.Files[imagecache.KernelName],
		Modules: filepath.Join(k.Dir, "modules"), Release: k.Manifest.Release,
		Package: k.Set[0].Package, Version: k.Set[0].Version, Tested: k.Tested,
		files: &k.Manifest,
	}
}
