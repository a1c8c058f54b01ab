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
	"slices"
	"time"

	"guesthouse.example/internal/regular"
	"guesthouse.example/internal/target"
	"guesthouse.example/internal/testcache"
)

// A Kernel is a kernel file and its modules.
type Kernel struct {
	Target string

	// Path is the kernel file and SHA256 its hash in hexadecimal.
	Path, SHA256 string

	// Modules is the directory that holds the modules, as /lib/modules/RELEASE
	// does. It is empty for a kernel of the user's own without modules.
	Modules string

	// Release is what "uname -r" prints. For a kernel of the user's own it is
	// the one that the modules are made for, and empty without modules.
	Release string

	// Package and Version name the Debian package, and Tested tells that it is
	// the very one that guesthouse was tested with. All are empty for a kernel
	// of the user's own.
	Package, Version string
	Tested           bool

	// files are the hashes of what Modules holds; nil if it is the user's own.
	files *manifest
}

func (k Kernel) image() Image {
	return Image{
		Target: k.Target, Kernel: k.Path, KernelSHA256: k.SHA256, Release: k.Release,
		KernelPackage: k.Package, KernelVersion: k.Version,
	}
}

// FetchKernel returns the kernel of a target: from the cache, without apt or a
// network, or from Debian's package, or the user's own ([Options.Kernel]).
//
// The package is the tested one of lock.json as long as the client's apt
// sources offer it, and else the newest they have, which a line in the log
// says; the cache then keeps to that one until lock.json changes.
func FetchKernel(ctx context.Context, targetName string, o Options) (Kernel, error) {
	t, err := target.Lookup(targetName)
	if err != nil {
		return Kernel{}, err
	}
	if o.Kernel != "" || o.Modules != "" {
		return ownKernel(t, o)
	}
	tested, err := lockedSet(t.Name)
	if err != nil {
		return Kernel{}, err
	}
	return fetchKernel(ctx, t, tested, o)
}

// CachedKernel returns the kernel that FetchKernel would take from the cache for a
// target, or an error if there is none: nothing is fetched.
func CachedKernel(targetName string, o Options) (Kernel, error) {
	t, err := target.Lookup(targetName)
	if err != nil {
		return Kernel{}, err
	}
	tested, err := lockedSet(t.Name)
	if err != nil {
		return Kernel{}, err
	}
	c, err := openCache(o)
	if err != nil {
		return Kernel{}, err
	}
	return c.kernel(t, tested)
}

func ownKernel(t target.Target, o Options) (Kernel, error) {
	const step = "use kernel"
	if o.Kernel == "" {
		return Kernel{}, fail(step, t.Name, errors.New("modules are given and no kernel"), ownKernelHint)
	}
	path, err := filepath.Abs(o.Kernel)
	if err != nil {
		return Kernel{}, fail(step, o.Kernel, err, "")
	}
	testcache.Depends(path)
	k := Kernel{Target: t.Name, Path: path}
	if k.SHA256, err = hashFile(path); err != nil {
		return Kernel{}, fail(step, o.Kernel, err, "name the kernel's file: vmlinuz, bzImage or Image")
	}
	if o.Modules == "" {
		return k, nil
	}
	k.Modules, err = filepath.Abs(o.Modules)
	if err == nil {
		testcache.Depends(k.Modules)
		k.Modules, err = filepath.EvalSymlinks(k.Modules)
	}
	if err == nil {
		var modules *tree
		if modules, err = readTree(k.Modules, nil); err == nil {
			k.Release, err = modules.release()
		}
	}
	if err != nil {
		return Kernel{}, fail(step, o.Modules, err, "name the directory that /lib/modules/RELEASE is on the kernel's system")
	}
	return k, nil
}

// taken is the content of kernels/TARGET.json: which kernel is used although
// another one was tested.
type taken struct {
	Tested kernelSet `json:"tested"`
	Taken  kernelSet `json:"taken"`
}

func fetchKernel(ctx context.Context, t target.Target, tested kernelSet, o Options) (Kernel, error) {
	const step = "fetch kernel"
	c, err := openCache(o)
	if err != nil {
		return Kernel{}, err
	}
	k, err := c.kernel(t, tested)
	if err == nil {
		return k, nil
	}
	w, err := c.workshop(ctx, "kernel-"+t.Name)
	if err != nil {
		return Kernel{}, fail(step, t.Name, err, "")
	}
	defer w.close()
	// Another process may have fetched it while this one waited.
	k, err = c.kernel(t, tested)
	if err == nil {
		return k, nil
	}
	damage := err
	if errors.Is(damage, fs.ErrNotExist) {
		damage = nil
	} else {
		o.notice("%s: the cached kernel is damaged (%v), fetching it again", t.Name, damage)
	}
	set, err := fetch(ctx, c, w, t, tested, o)
	if err == nil {
		k, err = c.open(t, set, tested)
	}
	if err != nil {
		hint := "check the network and apt's sources, or " + ownKernelHint
		var mismatch *mismatchError
		var missing *missingError
		switch {
		case errors.As(err, &mismatch):
			hint = "the file was altered on its way or on the mirror: try again or use another mirror; nothing of it was kept"
		case errors.As(err, &missing):
			hint = "the sources have to be Debian's and must not be limited to other architectures; else " + ownKernelHint
		}
		if damage != nil {
			err = fmt.Errorf("the cached one is damaged (%v), and fetching it again failed: %w", damage, err)
		}
		return Kernel{}, fail(step, t.Name, err, hint)
	}
	w.prune(c, "kernels")
	return k, nil
}

// kernel returns a target's kernel if the cache has it. Its error wraps
// fs.ErrNotExist if not, and is another one if what the cache has is damaged.
func (c cache) kernel(t target.Target, tested kernelSet) (Kernel, error) {
	k, err := c.open(t, tested, tested)
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return k, err
	}
	testcache.Depends(c.path("kernels", t.Name+".json"))
	data, err := regular.ReadFile(c.path("kernels", t.Name+".json"))
	if err != nil {
		return Kernel{}, err
	}
	var other taken
	if err := json.Unmarshal(data, &other); err != nil {
		return Kernel{}, fmt.Errorf("%s.json: %w", t.Name, err)
	}
	if !slices.Equal(other.Tested, tested) {
		// The lock file has changed since.
		return Kernel{}, fs.ErrNotExist
	}
	return c.open(t, other.Taken, tested)
}

func (c cache) open(t target.Target, set, tested kernelSet) (Kernel, error) {
	if len(set) == 0 {
		return Kernel{}, fs.ErrNotExist
	}
	dir := c.path("kernels", set.key())
	m, err := readManifest(dir)
	if err != nil {
		return Kernel{}, err
	}
	f, err := m.open(dir, "vmlinuz")
	if err != nil {
		return Kernel{}, err
	}
	f.Close()
	testcache.Depends(f.Name())
	used(dir)
	return Kernel{
		Target: t.Name, Path: filepath.Join(dir, "vmlinuz"), SHA256: m.Files["vmlinuz"],
		Modules: filepath.Join(dir, "modules"), Release: m.Release,
		Package: set[0].Package, Version: set[0].Version, Tested: slices.Equal(set, tested),
		files: &m,
	}, nil
}

// fetch chooses a set, downloads it and puts it into the cache.
func fetch(ctx context.Context, c cache, w *workshop, t target.Target, tested kernelSet, o Options) (kernelSet, error) {
	a, err := newApt(w.path("apt"), t.DebianArch)
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
		o.notice("%s: fetching %v (%s MB)", t.Name, set[0], megabytes(set.size()))
	case len(tested) == 0:
		o.notice("%s: fetching %v (%s MB); no kernel was tested for this target", t.Name, set[0], megabytes(set.size()))
	default:
		o.notice("%s: fetching %v (%s MB) instead of the tested %v, which apt's sources no longer offer",
			t.Name, set[0], megabytes(set.size()), tested[0])
	}
	stop = o.progress("kernel "+t.Name, growing(filepath.Join(a.dir, "debs"), set.size()))
	if err := os.Mkdir(w.path("kernel"), 0o777); err != nil {
		return nil, err
	}
	u := unpacker{dir: w.path("kernel"), files: map[string]string{}}
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
	if err := m.write(u.dir); err != nil {
		return nil, err
	}
	if err := w.publish("kernel", c.path("kernels", set.key())); err != nil {
		return nil, err
	}
	if ok {
		return set, nil
	}
	data, err := json.MarshalIndent(taken{Tested: tested, Taken: set}, "", "\t")
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(w.path("taken"), append(data, '\n'), 0o666); err != nil {
		return nil, err
	}
	return set, w.publish("taken", c.path("kernels", t.Name+".json"))
}

// unpackDeb takes the kernel and the modules out of a package. Its scripts do
// not run.
func (u *unpacker) unpackDeb(ctx context.Context, a *apt, path string) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := u.unpackTar(r)
		if err != nil {
			// The program would wait for ever for its reader.
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
