package images

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

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

	// Release is the kernel's release, as "uname -r" prints it. For your own
	// kernel it is the release that the modules are made for, or empty without
	// modules.
	Release string

	// Package and Version name the Debian package. Tested reports that
	// guesthouse was tested with exactly this package. All are zero for your own
	// kernel.
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

// FetchKernel returns the kernel of a target. It returns your own kernel
// ([Options.Kernel]) if you set one. Otherwise it returns the kernel in the cache,
// which needs neither apt nor a network, or fetches a Debian package.
//
// It fetches the package with which this version of guesthouse was tested. If
// the apt sources no longer offer that package, FetchKernel fetches the newest
// one that they offer and logs that. The cache keeps this choice until a version
// of guesthouse that was tested with another package uses the cache.
func FetchKernel(ctx context.Context, targetName string, o Options) (Kernel, error) {
	t, err := target.Lookup(targetName)
	if err != nil {
		return Kernel{}, err
	}
	if o.Kernel != "" || o.Modules != "" {
		return ownKernel(t, o)
	}
	tested, err := imagecache.Tested(t.Name)
	if err != nil {
		return Kernel{}, err
	}
	return fetchKernel(ctx, t, tested, o)
}

func ownKernel(t target.Target, o Options) (Kernel, error) {
	const step = "use kernel"
	if o.Kernel == "" {
		return Kernel{}, fail(step, t.Name, errors.New("modules without a kernel"), ownKernelHint)
	}
	path, err := filepath.Abs(o.Kernel)
	if err != nil {
		return Kernel{}, fail(step, o.Kernel, err, "")
	}
	o.inputs.depends(path)
	k := Kernel{Target: t.Name, Path: path}
	if k.SHA256, err = imagecache.HashFile(path); err != nil {
		return Kernel{}, fail(step, o.Kernel, err, "name the kernel's file: vmlinuz, bzImage or Image")
	}
	if o.Modules == "" {
		return k, nil
	}
	k.Modules, err = filepath.Abs(o.Modules)
	if err == nil {
		o.inputs.depends(k.Modules)
		k.Modules, err = filepath.EvalSymlinks(k.Modules)
	}
	if err == nil {
		var modules *tree
		if modules, err = readTree(k.Modules, nil, o.inputs); err == nil {
			k.Release, err = modules.release()
		}
	}
	if err != nil {
		return Kernel{}, fail("use modules", o.Modules, err, "name the directory of the kernel's modules, such as /lib/modules/RELEASE")
	}
	return k, nil
}

func fetchKernel(ctx context.Context, t target.Target, tested imagecache.KernelSet, o Options) (Kernel, error) {
	const step = "fetch kernel"
	c, err := openCache(o)
	if err != nil {
		return Kernel{}, err
	}
	// A tested kernel that appears counts before a choice. Its hashes fix the rest of its directory.
	o.inputs.add(false, c.Path(imagecache.Kernels, tested.Key(), imagecache.ManifestName), c.ChoicePath(t.Name))
	k, err := c.Kernel(t.Name, tested)
	if err == nil {
		return cachedKernel(t, k), nil
	}
	b, err := c.Build(ctx, "kernel-"+t.Name)
	if err != nil {
		return Kernel{}, fail(step, t.Name, err, "")
	}
	defer b.Close()
	// Another process may have fetched the kernel while this one waited for the lock.
	k, err = c.Kernel(t.Name, tested)
	if err == nil {
		return cachedKernel(t, k), nil
	}
	damage := err
	if errors.Is(damage, fs.ErrNotExist) {
		damage = nil
	} else {
		o.notice("%s: the cached kernel is damaged (%v), fetching it again", t.Name, damage)
	}
	set, err := fetch(ctx, c, b, t, tested, o)
	if err == nil {
		k, err = c.OpenKernel(set, tested)
	}
	if err != nil {
		hint := "check the network and apt's sources, or " + ownKernelHint
		var mismatch *mismatchError
		var missing *missingError
		switch {
		case errors.As(err, &mismatch):
			hint = "the file was altered on the mirror or on its way: try again or use another mirror; guesthouse has not kept the file"
		case errors.As(err, &missing):
			hint = "check that apt's sources are Debian's and not limited to other architectures, or " + ownKernelHint
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
	return Kernel{
		Target: t.Name, Path: k.Path(), SHA256: k.Manifest.Files[imagecache.KernelName],
		Modules: filepath.Join(k.Dir, "modules"), Release: k.Manifest.Release,
		Package: k.Set[0].Package, Version: k.Set[0].Version, Tested: k.Tested,
		files: &k.Manifest,
	}
}

// fetch chooses a set of packages, downloads and unpacks it, and publishes it in the cache.
func fetch(ctx context.Context, c *imagecache.Cache, b *store.Build, t target.Target, tested imagecache.KernelSet, o Options) (imagecache.KernelSet, error) {
	a, err := newApt(b.Path("apt"), t.DebianArch)
	if err != nil {
		return nil, err
	}
	stop := o.progress("kernel "+t.Name, func(d time.Duration) string {
		return "package lists " + growing(filepath.Join(a.dir, "lists"), 0)(d)
	})
	defer func() { stop() }()
	if err := a.update(ctx); err != nil {
		return nil, err
	}
	set := tested
	ok, err := a.offers(ctx, tested)
	if err != nil {
		return nil, err
	}
	if !ok {
		if set, err = a.newest(ctx, t.KernelPackage); err != nil {
			return nil, err
		}
	}
	stop()
	switch {
	case ok:
		o.notice("%s: fetching %v (%s MB)", t.Name, set[0], megabytes(set.Size()))
	case len(tested) == 0:
		o.notice("%s: fetching %v (%s MB); guesthouse was tested with no kernel for this target", t.Name, set[0], megabytes(set.Size()))
	default:
		o.notice("%s: fetching %v (%s MB) instead of the tested %v, which apt's sources no longer offer",
			t.Name, set[0], megabytes(set.Size()), tested[0])
	}
	stop = o.progress("kernel "+t.Name, growing(filepath.Join(a.dir, "debs"), set.Size()))
	if err := os.Mkdir(b.Path("kernel"), 0o777); err != nil {
		return nil, err
	}
	u := unpacker{dir: b.Path("kernel"), files: map[string]string{}}
	for _, d := range set {
		path, err := a.download(ctx, d)
		if err != nil {
			return nil, err
		}
		if err := u.unpackDeb(ctx, a, path); err != nil {
			return nil, fmt.Errorf("unpack %v: %w", d, err)
		}
	}
	m, err := u.manifest()
	if err != nil {
		return nil, fmt.Errorf("unpack %v: %w", set[0], err)
	}
	m.Debs = set
	if err := m.Write(u.dir); err != nil {
		return nil, err
	}
	if err := b.Publish("kernel", c.Path(imagecache.Kernels, set.Key())); err != nil {
		return nil, err
	}
	if ok {
		return set, nil
	}
	data, err := json.MarshalIndent(imagecache.Choice{Tested: tested, Taken: set}, "", "\t")
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(b.Path("choice"), append(data, '\n'), 0o666); err != nil {
		return nil, err
	}
	return set, b.Publish("choice", c.ChoicePath(t.Name))
}

// unpackDeb takes the kernel and the modules out of a package. It does not run the package's
// scripts.
func (u *unpacker) unpackDeb(ctx context.Context, a *apt, path string) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := u.unpackTar(r)
		if err != nil {
			// Without a reader, dpkg-deb would block forever.
			cancel(err)
		}
		r.CloseWithError(err)
		done <- err
	}()
	_, err := run(ctx, command{dir: u.dir, env: a.env, path: a.dpkgDeb, args: []string{"--fsys-tarfile", path}, stdout: w})
	w.CloseWithError(err)
	unpacked := <-done
	if err != nil {
		return err
	}
	return unpacked
}
