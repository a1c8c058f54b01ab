package harness

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// temporaryPrefix marks a record that nobody asked for. Its name does, because
// that is there as soon as the directory is.
const temporaryPrefix = "guesthouse-temporary-"

// temporaryRecord makes a directory for a record and locks it. Before it is
// locked a sweep may take it for one whose owner was killed; then it makes
// another one.
func temporaryRecord(parent string) (*os.File, error) {
	for {
		dir, err := os.MkdirTemp(parent, temporaryPrefix)
		if err != nil {
			return nil, err
		}
		held, err := lockRecord(dir, unix.LOCK_EX) // a sweep is short
		if err == nil {
			return held, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			os.Remove(dir)
			return nil, err
		}
	}
}

// lockRecord opens a directory and locks it. The error wraps fs.ErrNotExist if
// it is no longer at its path.
func lockRecord(dir string, how int) (*os.File, error) {
	// No link: what it points to is somebody else's.
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
	held, err := f.Stat()
	if err != nil {
		return err
	}
	there, err := os.Lstat(f.Name())
	if err != nil {
		return err
	}
	if !os.SameFile(held, there) {
		return fs.ErrNotExist
	}
	return nil
}

var sweepOnce sync.Once

// sweepRecords removes the temporary records in parent whose owners were
// killed. What cannot be removed stays: that must fail no boot.
func sweepRecords(parent string) {
	list, _ := os.ReadDir(parent)
	for _, e := range list {
		if strings.HasPrefix(e.Name(), temporaryPrefix) {
			sweepRecord(filepath.Join(parent, e.Name()))
		}
	}
}

// sweepRecord removes one record unless its machine runs, its run has failed or
// somebody put a file of their own there.
func sweepRecord(dir string) {
	f, err := lockRecord(dir, unix.LOCK_EX|unix.LOCK_NB)
	if err != nil {
		return // its machine runs, or another sweep is there
	}
	defer f.Close()
	var is unix.Stat_t
	if unix.Fstat(int(f.Fd()), &is) != nil || int(is.Uid) != os.Geteuid() {
		return
	}
	names, err := f.Readdirnames(-1)
	if err != nil || slices.ContainsFunc(names, func(n string) bool { return !slices.Contains(recordFiles, n) }) {
		return
	}
	if !wasKilled(f) {
		return
	}
	for _, name := range names {
		// In the directory that is locked, whatever stands at its path now.
		if unix.Unlinkat(int(f.Fd()), name, 0) != nil {
			return
		}
	}
	unix.Rmdir(dir)
}

// wasKilled says whether the record of a machine that no longer runs is one
// that Close would have removed.
func wasKilled(dir *os.File) bool {
	fd, err := unix.Openat(int(dir.Fd()), resultName, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err == unix.ENOENT {
		return true // before it started QEMU
	}
	if err != nil {
		return false
	}
	f := os.NewFile(uintptr(fd), resultName)
	defer f.Close()
	var r Result
	text, err := io.ReadAll(f)
	return err == nil && json.Unmarshal(text, &r) == nil && r.Error == ""
}
