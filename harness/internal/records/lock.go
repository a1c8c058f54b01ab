package records

import (
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// tempPrefix begins the name of every temporary record. A sweep recognizes a temporary record by its
// name, because the directory has no other mark until its first file is written.
const tempPrefix = "guesthouse-temporary-"

// createTemporary makes a directory for a temporary record and locks it. A sweep may remove the
// directory before it is locked; createTemporary then makes another one.
func createTemporary(parent string) (*os.File, error) {
	for {
		dir, err := os.MkdirTemp(parent, tempPrefix)
		if err != nil {
			return nil, err
		}
		locked, err := lockRecord(dir, unix.LOCK_EX) // a sweep holds the lock only briefly
		if err == nil {
			return locked, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			os.Remove(dir)
			return nil, err
		}
	}
}

// lockRecord opens a directory and locks it; how is flock's operation. The error wraps
// fs.ErrNotExist if the directory is no longer at its path.
func lockRecord(dir string, how int) (*os.File, error) {
	// The target of a symbolic link may be another user's directory.
	f, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	if err = lockAtPath(f, how); err != nil {
		f.Close()
		return nil, &fs.PathError{Op: "lock", Path: dir, Err: err}
	}
	return f, nil
}

// lockAtPath locks an open directory. It returns fs.ErrNotExist if the path of the directory leads to
// another one or to none.
func lockAtPath(f *os.File, how int) error {
	for {
		err := unix.Flock(int(f.Fd()), how)
		if err == nil {
			break
		}
		if err != unix.EINTR {
			return err
		}
	}
	locked, err := f.Stat()
	if err != nil {
		return err
	}
	atPath, err := os.Lstat(f.Name())
	if err != nil {
		return err
	}
	if !os.SameFile(locked, atPath) {
		return fs.ErrNotExist
	}
	return nil
}
