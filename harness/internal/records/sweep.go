// Package records writes the record of a machine's run, which is a directory, and removes records that
// nobody needs any more.
package records

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Names in a record that other packages need.
const (
	SpecFile   = "spec.json"
	ResultFile = "result.json"
)

// Files are the names of all files that a record can hold.
var Files = []string{
	SpecFile,            // the Spec; "guesthouse run -spec" boots it again
	SpecFile + ".new",   // the next one, until it replaces spec.json
	"qemu.args",         // QEMU's command line, one argument a line
	"console.log",       // the console, each line with the seconds since QEMU's start
	"qemu.stderr",       // what QEMU printed itself
	"agent.log",         // the messages of the harness and of the guest's agent
	"qmp.log",           // every QMP line, with its time
	ResultFile,          // how far the run came
	ResultFile + ".new", // the next one, until it replaces result.json
}

// Prefix marks a record that nobody asked for. Its name does, because that is
// there as soon as the directory is.
const Prefix = "guesthouse-temporary-"

// Temporary makes a directory for a record and locks it. Before it is
// locked a sweep may take it for one whose owner was killed; then it makes
// another one.
func Temporary(parent string) (*os.File, error) {
	for {
		dir, err := os.MkdirTemp(parent, Prefix)
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

// SweepTemporary removes the temporary records in parent whose owners were
// killed: those that the end of the machine would have removed. What cannot be removed stays:
// that must fail no boot.
func SweepTemporary(parent string) {
	sweep(parent, func(name string) bool { return strings.HasPrefix(name, Prefix) },
		func(r state) bool { return r.Error == "" })
}

// SweepKilled removes the records in parent, of those whose name matches, of which
// nobody ended the machine. One that is about to be written it leaves alone.
func SweepKilled(parent string, name *regexp.Regexp) {
	sweep(parent, func(n string) bool { return name.MatchString(n) && !isNew(filepath.Join(parent, n)) },
		func(r state) bool { return r.State == "" || r.State == "booting" || r.State == "ready" })
}

// isNew says whether a directory may be one that somebody is about to make a record. It is
// locked only then, and a sweep's own lock would be in the way.
func isNew(dir string) bool {
	if _, err := os.Lstat(filepath.Join(dir, SpecFile)); err == nil {
		return false
	}
	is, err := os.Lstat(dir)
	return err != nil || time.Since(is.ModTime()) < time.Hour
}

// state is what a result says of the machine's end.
type state struct{ State, Error string }

func sweep(parent string, named func(string) bool, left func(state) bool) {
	list, _ := os.ReadDir(parent)
	for _, e := range list {
		if named(e.Name()) {
			sweepRecord(filepath.Join(parent, e.Name()), left)
		}
	}
}

// sweepRecord removes one record unless its machine runs, it was not left by a kill or
// somebody put a file of their own there.
func sweepRecord(dir string, left func(state) bool) {
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
	if err != nil || slices.ContainsFunc(names, func(n string) bool { return !slices.Contains(Files, n) }) {
		return
	}
	if r, err := readState(f); err != nil || !left(r) {
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

// readState reads the result in a directory: nothing before QEMU was started.
func readState(dir *os.File) (r state, err error) {
	fd, err := unix.Openat(int(dir.Fd()), ResultFile, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err == unix.ENOENT {
		return r, nil
	}
	if err != nil {
		return r, err
	}
	f := os.NewFile(uintptr(fd), ResultFile)
	defer f.Close()
	text, err := io.ReadAll(f)
	if err == nil {
		err = json.Unmarshal(text, &r)
	}
	return r, err
}
