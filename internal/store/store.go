// Package store keeps files that take long to build in a directory: kernels, initramfs archives,
// templates. Any number of processes may share a store.
//
// A store is a directory:
//
//	...         the entries, each a file or a directory, in folders that the caller chooses
//	locks/NAME  the build lock of the builds with this name
//	tmp/NAME/   a directory in which an entry is being built
//	tmp/gone-*  an entry that is being removed
//
// Everything outside tmp is whole: it was built in tmp and then renamed. A reader needs no lock.
// A killed process leaves a directory in tmp, and the next build removes it. The store never removes
// a lock file, because another process may be waiting for its lock.
//
// A store does not interpret its entries. The caller chooses their names and formats, and checks
// their content.
package store

import (
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/gofrs/flock"
	"golang.org/x/sys/unix"
)

// Options are the properties of a store. The zero value gives each build name a lock file of its
// own and leaves flushing to the kernel.
type Options struct {
	// Private gives the directories of the store to this user alone.
	Private bool

	// Durable makes Publish flush an entry to the disk, so that not even a power cut leaves
	// half of it.
	Durable bool

	// LockPrefix bounds the number of lock files: build names whose first LockPrefix bytes are
	// the same share one. If it is 0, each name has its own.
	LockPrefix int
}

// A Store is an open store.
type Store struct {
	dir     string
	options Options
}

const (
	locksFolder = "locks"
	tmpFolder   = "tmp"
	gonePrefix  = "gone-"
)

// Open opens the store in a directory. It makes the directory and its folders if they are
// missing. It also opens an existing read-only directory, for readers.
func Open(dir string, o Options, folders ...string) (*Store, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	s := &Store{dir, o}
	for _, folder := range append(folders, locksFolder, tmpFolder) {
		err := os.MkdirAll(s.Path(folder), s.perm())
		if _, missing := os.Stat(dir); missing == nil && ReadOnly(err) {
			break
		}
		if err != nil {
			return nil, err
		}
	}
	return s, nil
}

// Path returns the path of something in the store.
func (s *Store) Path(elem ...string) string {
	return filepath.Join(append([]string{s.dir}, elem...)...)
}

func (s *Store) perm() fs.FileMode {
	if s.options.Private {
		return 0o700
	}
	return 0o777
}

// ReadOnly reports whether an error says that a store or its file system is read-only.
func ReadOnly(err error) bool { return errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EROFS) }

// Remove removes an entry. Readers find the whole entry or none. A missing entry is not an error.
func (s *Store) Remove(path string) error {
	gone := s.gone()
	if err := os.Rename(path, gone); errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err // tmp is missing
	} else if err != nil {
		return err
	}
	return os.RemoveAll(gone)
}

// gone returns an unused path in tmp for an entry that is being removed.
func (s *Store) gone() string { return s.Path(tmpFolder, gonePrefix+rand.Text()) }

// Sweep removes the directories that killed processes have left in tmp. It does not touch the builds
// of running processes.
func (s *Store) Sweep() {
	left, _ := os.ReadDir(s.Path(tmpFolder))
	for _, e := range left {
		path := s.Path(tmpFolder, e.Name())
		if strings.HasPrefix(e.Name(), gonePrefix) {
			_ = os.RemoveAll(path)
			continue
		}
		file := s.lockFile(e.Name())
		if _, err := os.Lstat(file); err != nil {
			continue // A build makes its lock file first, so this is no build.
		}
		lock := flock.New(file)
		if held, err := lock.TryLock(); err == nil && held {
			// Hold the lock only for a rename and not for the slow removal: a build that starts
			// meanwhile would wait, and report that it has waited for another build.
			gone := s.gone()
			err := os.Rename(path, gone)
			_ = lock.Unlock()
			if err == nil {
				_ = os.RemoveAll(gone)
			}
		}
	}
}
