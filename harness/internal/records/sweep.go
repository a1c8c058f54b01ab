package records

import (
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// sweepTemporary removes the temporary records in parent whose owners were killed. It keeps the
// records of failed runs. It returns no error, because a record that cannot be removed must not fail a
// boot.
func sweepTemporary(parent string) {
	sweep(parent, func(name string) bool { return strings.HasPrefix(name, tempPrefix) },
		func(r outcome) bool { return r.Error == "" })
}

// SweepKilled removes the records in parent whose names match a pattern and whose owners were killed
// before they ended their machines. It keeps directories in which a record is about to be written.
func SweepKilled(parent string, pattern *regexp.Regexp) {
	sweep(parent, func(name string) bool { return pattern.MatchString(name) && !isNew(filepath.Join(parent, name)) },
		func(r outcome) bool { return r.State == "" || r.State == "booting" || r.State == "ready" })
}

// isNew reports whether a directory holds no record yet and was changed within the last hour. Its owner
// may be about to lock it, and would fail if a sweep had locked it.
func isNew(dir string) bool {
	if _, err := os.Lstat(filepath.Join(dir, SpecFile)); err == nil {
		return false
	}
	info, err := os.Lstat(dir)
	return err != nil || time.Since(info.ModTime()) < time.Hour
}

// An outcome is the part of a result that decides whether a sweep removes the record.
type outcome struct{ State, Error string }

// sweep removes the records in parent for which named and removable return true.
func sweep(parent string, named func(string) bool, removable func(outcome) bool) {
	list, _ := os.ReadDir(parent)
	for _, e := range list {
		if named(e.Name()) {
			sweepRecord(filepath.Join(parent, e.Name()), removable)
		}
	}
}

// sweepRecord removes a record if its outcome is removable. It keeps a record whose machine runs, a
// record of another user, and a directory that holds other files than those of a record.
func sweepRecord(dir string, removable func(outcome) bool) {
	f, err := lockRecord(dir, unix.LOCK_EX|unix.LOCK_NB)
	if err != nil {
		return // its machine runs, or another sweep has locked it
	}
	defer f.Close()
	var info unix.Stat_t
	if unix.Fstat(int(f.Fd()), &info) != nil || int(info.Uid) != os.Geteuid() {
		return
	}
	names, err := f.Readdirnames(-1)
	if err != nil || slices.ContainsFunc(names, func(n string) bool { return !slices.Contains(Files, n) }) {
		return
	}
	if r, err := readOutcome(f); err != nil || !removable(r) {
		return
	}
	for _, name := range names {
		// Unlinkat removes files from the locked directory, even if its path leads elsewhere by now.
		if unix.Unlinkat(int(f.Fd()), name, 0) != nil {
			return
		}
	}
	unix.Rmdir(dir)
}

// readOutcome reads the result in a directory. The outcome is empty if the directory has no result, as
// before QEMU was started.
func readOutcome(dir *os.File) (r outcome, err error) {
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
