// Package imagecache is the directory in which package images keeps what machines boot from.
//
// It finds, lists, imports and removes kernels, u-root's commands and initramfs archives. Package
// images makes them, and the command line shows them. This package fetches and compiles nothing.
//
// A cache is a store with these folders:
//
//	kernels/KEY/          an unpacked kernel package: vmlinuz, modules/ and a manifest
//	kernels/TARGET.json   the kernel that is used although another one was tested
//	busybox/KEY/          u-root's commands, compiled into one program, with a manifest
//	initramfs/SHA256.cpio
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
)

// A Cache is an open cache.
type Cache struct{ store *store.Store }

// Open opens the cache in a directory, which it makes if it is missing. The empty string stands
// for guesthouse in the user's cache directory. A cache that cannot be written serves what it has.
//
// Its error is an *Error, as that of every method of Cache that writes.
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
	s, err := store.Open(dir, store.Options{Durable: true}, Kernels, Commands, Initramfs)
	if err != nil {
		return nil, Fail("open cache", dir, err, "name a directory that can be written with -cache DIR or Options.Cache")
	}
	return &Cache{s}, nil
}

// Path returns the path of something in the cache.
func (c *Cache) Path(elem ...string) string { return c.store.Path(elem...) }

const writableHint = "make it writable, or name another directory with -cache DIR or Options.Cache"

// Build waits for the exclusive right to make a thing and returns an empty directory to make it in.
func (c *Cache) Build(ctx context.Context, thing string) (*store.Build, error) {
	b, err := c.store.Build(ctx, thing)
	if err != nil && ctx.Err() == nil {
		err = Fail("write cache", c.Path(), err, writableHint)
	}
	return b, err
}

// BuildOutside is Build for a thing that does not go into the cache. Where the cache cannot be
// written, it returns a directory for temporary files of the system, and the right is not exclusive.
func (c *Cache) BuildOutside(ctx context.Context, thing string) (*store.Build, error) {
	b, err := c.Build(ctx, thing)
	// The directory of a cache that was never writable lacks the folders.
	if store.ReadOnly(err) || errors.Is(err, fs.ErrNotExist) {
		return store.Scratch()
	}
	return b, err
}

// Check returns the cache's directory, after it has written a file there.
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
