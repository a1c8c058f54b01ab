// Package regular opens regular files only, tells whether one has changed, and hashes it. Opening a
// FIFO would block until somebody opens its other end, whatever a context says.
package regular

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// ErrOther is wrapped by the error for what is no regular file.
var ErrOther = errors.New("not a regular file")

// Open opens a file for reading.
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

// ReadFile reads a file.
func ReadFile(name string) ([]byte, error) {
	f, err := Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(f)
}
