package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"

	"guesthouse.example/internal/wire"
)

// NotStarted is the exit status of a command that cannot be started, as in a shell.
const NotStarted = 127

// notRunnable is the exit status of a command that is found and cannot be run, as in a shell.
const notRunnable = 126

// refusal says why a command was not started.
func refusal(err error) wire.Refusal {
	r := wire.Refusal{Status: notRunnable, Why: err.Error()}
	if errno := unix.Errno(0); errors.As(err, &errno) {
		r.Errno = uint16(errno)
	}
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) && !errors.As(err, new(*directoryError)) {
		r.Status, r.Errno = NotStarted, uint16(unix.ENOENT)
	}
	return r
}

// A directoryError says why a command cannot start in its directory.
type directoryError struct{ error }

func (e *directoryError) Unwrap() error { return e.error }

// lookPath is exec.LookPath for a name without a slash. It runs less code: in a restored machine all code is slow at
// first.
func lookPath(name string) (string, error) {
	for dir := range strings.SplitSeq(os.Getenv("PATH"), ":") {
		path := dir + "/" + name
		var info unix.Stat_t
		if unix.Stat(path, &info) == nil && info.Mode&unix.S_IFMT == unix.S_IFREG && info.Mode&0o111 != 0 {
			return path, nil
		}
	}
	return "", &exec.Error{Name: name, Err: exec.ErrNotFound}
}

// startError explains why a path could not be run.
func startError(path string, err error) error {
	info, failed := os.Stat(path)
	switch {
	case failed != nil:
		return failed
	case errors.Is(err, unix.ENOENT):
		return fmt.Errorf("%s: its interpreter is missing: %w", path, errMissing{})
	case info.IsDir():
		err = unix.EISDIR
	}
	return &os.PathError{Op: "run", Path: path, Err: err}
}

// errMissing is ENOENT of a program's interpreter. The program itself exists, so it is not fs.ErrNotExist.
type errMissing struct{}

func (errMissing) Error() string { return unix.ENOENT.Error() }

func isDirectory(dir string) error {
	info, err := os.Stat(dir)
	if err == nil && !info.IsDir() {
		err = unix.ENOTDIR
	}
	if err != nil {
		if at := (*os.PathError)(nil); errors.As(err, &at) {
			err = at.Err
		}
		return fmt.Errorf("its directory %s: %w", dir, err)
	}
	return nil
}
