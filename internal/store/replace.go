package store

import (
	"errors"
	"io"
	"os"
	"path/filepath"
)

// Replace writes a file that only this user can read, so that a reader finds the old content or
// the new one, never half of it. It does not flush the file to the disk: after a power cut the
// file may be empty.
//
// It is no part of a store: it serves single files in any directory.
func Replace(file string, write func(io.Writer) error) error {
	f, err := os.CreateTemp(filepath.Dir(file), "."+filepath.Base(file)+".*.new")
	if err != nil {
		return err
	}
	if err := errors.Join(write(f), f.Close()); err != nil {
		os.Remove(f.Name())
		return err
	}
	if err := os.Rename(f.Name(), file); err != nil {
		os.Remove(f.Name())
		return err
	}
	return nil
}
