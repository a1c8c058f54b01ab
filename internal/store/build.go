package store

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/gofrs/flock"
	"golang.org/x/sys/unix"
)

// A Build is the exclusive right to build entries under one name, with an empty directory for the
// build.
type Build struct {
	// Waited reports that another build with the same lock came first. The other build may have
	// published the entry.
	Waited bool

	store  *Store // nil for a build of Scratch
	dir    string
	unlock func()
}

// Build waits for the build lock of a name and makes an empty directory. It also sweeps the store.
// If ctx ends first, it returns the cause of ctx.
func (s *Store) Build(ctx context.Context, name string) (*Build, error) {
	unlock, waited, err := Lock(ctx, s.lockFile(name))
	if err != nil {
		return nil, err
	}
	b := &Build{Waited: waited, store: s, dir: s.Path(tmpFolder, name), unlock: unlock}
	if err := os.RemoveAll(b.dir); err != nil {
		b.Close()
		return nil, err
	}
	if err := os.Mkdir(b.dir, s.perm()); err != nil {
		b.Close()
		return nil, err
	}
	s.Sweep()
	return b, nil
}

// Scratch returns a build outside any store, in the system's directory for temporary files. It has
// no lock and cannot be published. It replaces Build for a read-only store.
func Scratch() (*Build, error) {
	dir, err := os.MkdirTemp("", "guesthouse-build-")
	if err != nil {
		return nil, err
	}
	return &Build{dir: dir, unlock: func() {}}, nil
}

// Path returns the path of a file in the build's directory. An empty name is the directory itself.
func (b *Build) Path(name string) string { return filepath.Join(b.dir, name) }

// Publish moves a finished file or directory from the build's directory to its path in the store.
// It replaces an existing entry, which the caller has found damaged.
func (b *Build) Publish(name, path string) error {
	src := b.Path(name)
	if b.store.options.Durable {
		if err := flushAll(src); err != nil {
			return err
		}
	}
	err := os.Rename(src, path)
	if errors.Is(err, fs.ErrExist) || errors.Is(err, unix.ENOTEMPTY) {
		// A directory cannot be renamed over another.
		damaged := b.store.gone()
		if err := os.Rename(path, damaged); err != nil {
			return err
		}
		defer os.RemoveAll(damaged)
		err = os.Rename(src, path)
	}
	if err != nil || !b.store.options.Durable {
		return err
	}
	parent, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer parent.Close()
	return parent.Sync()
}

// flushAll flushes the whole file system of path to the disk. For a directory of hundreds of files
// that is faster than a flush of each file.
func flushAll(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return os.NewSyscallError("syncfs", unix.Syncfs(int(f.Fd())))
}

// Close removes the build's directory and releases the lock.
func (b *Build) Close() {
	_ = os.RemoveAll(b.dir) // The next build sweeps what remains.
	b.unlock()
}

// lockAgain is the time between two attempts to lock a file.
const lockAgain = 10 * time.Millisecond

// Lock locks a file and makes it if it is missing. If another process, or another caller in this
// process, holds the lock, Lock waits and returns true as waited. If ctx ends first, Lock returns
// the cause of ctx. The kernel releases the locks of a process that ends.
func Lock(ctx context.Context, file string) (unlock func(), waited bool, err error) {
	if ctx.Err() != nil {
		return nil, false, context.Cause(ctx)
	}
	lock := flock.New(file)
	locked, err := lock.TryLock()
	if err == nil && !locked {
		waited = true
		_, err = lock.TryLockContext(ctx, lockAgain)
	}
	if err != nil {
		_ = lock.Close()
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, waited, err
	}
	return func() { _ = lock.Unlock() }, waited, nil
}

// lockFile returns the path of the build lock of a name.
func (s *Store) lockFile(name string) string {
	if n := s.options.LockPrefix; 0 < n && n < len(name) {
		name = name[:n]
	}
	return s.Path(locksFolder, name)
}
