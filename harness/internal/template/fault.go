package template

import (
	"errors"
	"io/fs"
)

// A Fault is an error whose cause is the template itself: its files are damaged or missing, it was
// saved from another machine, QEMU cannot load it, or its guest's agent does not answer after the
// restore. A cache removes such a template. Any other error of a restore has another cause: for
// example, the record cannot be written, or somebody has killed QEMU.
type Fault struct{ Err error }

func (f Fault) Error() string { return f.Err.Error() }
func (f Fault) Unwrap() error { return f.Err }

// IsFault reports whether an error wraps a Fault.
func IsFault(err error) bool {
	_, ok := errors.AsType[Fault](err)
	return ok
}

// faultIfMissing makes the error of opening a template's file a Fault if the file does not exist.
func faultIfMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return Fault{err}
	}
	return err
}
