// Package regular opens regular files and nothing else, and identifies them by their state and
// their hash.
//
// Package os opens a FIFO too, and then waits forever for a process at the other end, even after
// the caller's context has ended. Use package regular for every file whose name a user chooses.
package regular

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// ErrOther is wrapped by the error for a file that is not regular: a directory, a FIFO, a device.
var ErrOther = errors.New("not a regular file")

// Open opens a regular file for reading. It follows symbolic links.
func Open(name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = &os.PathError{Op: "open", Path: name, Err: ErrOther}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// ReadFile reads a regular file.
func ReadFile(name string) ([]byte, error) {
	f, err := Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(f)
}

// Check refuses a file that is missing, not regular or empty. The error begins with what the file is for.
func Check(what, file string) error {
	info, err := os.Stat(file)
	switch {
	case err != nil:
		return fmt.Errorf("%s: %w", what, err)
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s %s: not a regular file", what, file)
	case info.Size() == 0:
		return fmt.Errorf("%s %s: the file is empty", what, file)
	}
	return nil
}
