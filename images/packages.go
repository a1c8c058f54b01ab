package images

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"guesthouse.example/internal/imagecache"
	"guesthouse.example/internal/store"
	"guesthouse.example/internal/target"
)

const aptHint = "check the network and apt's sources, or " + ownKernelHint

// An aptOffer is a set of packages that apt offers.
type aptOffer struct {
	choose func(context.Context, *apt) (imagecache.KernelSet, error)
	why    func(imagecache.KernelSet) string                    // the end of the line that says what is fetched
	choice func(*imagecache.Cache, imagecache.KernelSet) string // the file that remembers the choice; "" if none has to
}

// fetch returns a function that chooses a set of packages, downloads and unpacks it unless the cache has
// it, and publishes the kernel and the choice in the cache.
func (f aptOffer) fetch(t target.Target, tested imagecache.KernelSet, o Options) func(context.Context, *imagecache.Cache, *store.Build) (imagecache.KernelSet, error) {
	return func(ctx context.Context, c *imagecache.Cache, b *store.Build) (imagecache.KernelSet, error) {
		return f.publish(ctx, c, b, t, tested, o)
	}
}

func (f aptOffer) publish(ctx context.Context, c *imagecache.Cache, b *store.Build, t target.Target, tested imagecache.KernelSet, o Options) (imagecache.KernelSet, error) {
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
	set, err := f.choose(ctx, a)
	if err != nil {
		return nil, err
	}
	stop()
	if _, err := c.OpenKernel(set, tested); err != nil {
		o.notice("%s: fetching %v (%s MB)%s", t.Name, set[0], megabytes(set.Size()), f.why(set))
		stop = o.progress("kernel "+t.Name, growing(filepath.Join(a.dir, "debs"), set.Size()))
		if err := unpack(ctx, a, b, set); err != nil {
			return nil, err
		}
		if err := b.Publish("kernel", c.Path(imagecache.Kernels, set.Key())); err != nil {
			return nil, err
		}
	}
	path := f.choice(c, set)
	if path == "" {
		return set, nil
	}
	data, err := json.MarshalIndent(imagecache.Choice{Tested: tested, Taken: set}, "", "\t")
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(b.Path("choice"), append(data, '\n'), 0o666); err != nil {
		return nil, err
	}
	return set, b.Publish("choice", path)
}

// unpack downloads a set of packages and writes the kernel that they hold into the directory "kernel" of b.
func unpack(ctx context.Context, a *apt, b *store.Build, set imagecache.KernelSet) error {
	if err := os.Mkdir(b.Path("kernel"), 0o777); err != nil {
		return err
	}
	u := unpacker{dir: b.Path("kernel"), files: map[string]string{}}
	for _, d := range set {
		path, err := a.download(ctx, d)
		if err != nil {
			return err
		}
		if err := u.unpackDeb(ctx, a, path); err != nil {
			return fmt.Errorf("unpack %v: %w", d, err)
		}
	}
	m, err := u.manifest()
	if err != nil {
		return fmt.Errorf("unpack %v: %w", set[0], err)
	}
	m.Debs = set
	if err := indexModules(u.dir, &m); err != nil {
		return err
	}
	return m.Write(u.dir)
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
