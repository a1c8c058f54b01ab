// Package imagecache keeps the files that machines boot from in a directory, the cache.
//
// It finds, lists, imports and removes kernels, u-root's commands, initramfs archives and guest
// programs. It neither fetches nor compiles them; package images does.
//
// A cache is a store with these folders:
//
//	kernels/KEY/                  an unpacked kernel package: vmlinuz, modules/ and a manifest
//	kernels/TARGET.json           the kernel that replaces a tested one that apt no longer offers
//	kernels/PACKAGE@TARGET.json   the kernel of a package that a user has named
//	busybox/KEY/                  u-root's commands, compiled into one program, with a manifest
//	initramfs/SHA256.cpio
//	programs/SHA256               a guest program
//	stamps/KEY                    a result of package images and the states of what it depends on
package imagecache

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"guesthouse.example/internal/store"
)

// The folders of a cache.
const (
	Kernels   = "kernels"
	Commands  = "busybox"
	Initramfs = "initramfs"
	Programs  = "programs"
	Stamps    = "stamps"
)

// A Cache is an open cache.
type Cache struct{ store *store.Store }

// Open opens the cache in a directory and makes the directory if it is missing. The empty string
// means guesthouse in the user's cache directory. A read-only cache still serves its files.
//
// The error is an *Error, like the errors of all methods of Cache that write.
func Open(dir string) (*Cache, error) {
	if dir == "" {
		base, err := os.UserCacheDir()
		if err != nil {
			return nil, Fail("open cache", "guesthouse", err, "name a directory with -cache DIR or Options.Cache")
		}
		dir = filepath.Join(base, "guesthouse")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, Fail("open cache", dir, err, "")
	}
	s, err := store.Open(dir, store.Options{Durable: true}, Kernels, Commands, Initramfs, Programs, Stamps)
	if err != nil {
		return nil, Fail("open cache", dir, err, "name a directory that can be written with -cache DIR or Options.Cache")
	}
	return &Cache{s}, nil
}

// Path returns the path of a file or folder in the cache.
func (c *Cache) Path(elem ...string) string { return c.store.Path(elem...) }

const writableHint = "make it writable, or name another directory with -cache DIR or Options.Cache"

// Build waits for the exclusive right to build a thing, and returns an empty directory for the build.
func (c *Cache) Build(ctx context.Context, thing string) (*store.Build, error) {
	b, err := c.store.Build(ctx, thing)
	if err != nil && ctx.Err() == nil {
		err = Fail("write cache", c.Path(), err, writableHint)
	}
	return b, err
}

// BuildOutside is like Build, for a thing that does not go into the cache. If the cache is
// read-only, it returns a directory among the system's temporary files, and the right is not
// exclusive.
func (c *Cache) BuildOutside(ctx context.Context, thing string) (*store.Build, error) {
	b, err := c.Build(ctx, thing)
	// A directory that was never writable lacks the cache's folders.
	if store.ReadOnly(err) || errors.Is(err, fs.ErrNotExist) {
		return store.Scratch()
	}
	return b, err
}

// Check writes a file into the cache, to see whether that works, and returns the cache's directory.
func (c *Cache) Check(ctx context.Context) (dir string, err error) {
	b, err := c.Build(ctx, "check")
	if err == nil {
		err = os.WriteFile(b.Path("file"), []byte("can be written"), 0o666)
		b.Close()
	}
	if failed, ok := errors.AsType[*Error](err); ok {
		err = failed.Err
	}
	if err != nil {
		return "", Fail("check cache", c.Path(), err, writableHint)
	}
	return c.Path(), nil
}
