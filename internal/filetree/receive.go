package filetree

import (
	"fmt"
	"math"
)

// A Destination says where a Receiver writes.
type Destination struct {
	// Path is the path of the copy, or of a directory that will contain the copy.
	Path string

	// Name is the copy's name in a directory that exists. The name "." means the directory itself.
	Name string

	// Exact says that Path is the copy's path even if a directory is there, and that missing directories
	// above it are made.
	Exact bool

	// Unnamed says that a file has no name until it is complete, if the file system can do that. Then
	// nothing is left of an incomplete file even if this process is killed.
	Unnamed bool

	// NoSetID leaves out setuid and setgid bits.
	NoSetID bool
}

// A Receiver writes a stream. One goroutine may call it.
type Receiver struct {
	to     Destination
	levels []level // the directories that lie in each other; the first contains the copy
	file   *incoming
	made   string // the copy's name in the first level, if the copy is new
	count  int    // entries that are complete
	done   bool
}

// NewReceiver returns a receiver. The caller calls Close.
func NewReceiver(to Destination) *Receiver { return &Receiver{to: to} }

// Done reports whether the stream has ended and everything is written.
func (r *Receiver) Done() bool { return r.done }

// Write writes what a batch describes.
func (r *Receiver) Write(batch []byte) error {
	if len(batch) == 0 || batch[0] > last {
		return errMalformed
	}
	f := &fields{b: batch[1:]}
	for len(f.b) > 0 {
		if err := r.record(f); err != nil {
			return err
		}
	}
	if !IsLast(batch) {
		return nil
	}
	if len(r.levels) != 1 || r.count == 0 || r.file != nil {
		return errMalformed
	}
	r.done = true
	return nil
}

func (r *Receiver) record(f *fields) error {
	kind := f.take(1)[0]
	inFile := kind == kindBlock || kind == kindEnd
	if r.done || inFile != (r.file != nil) {
		return errMalformed
	}
	switch kind {
	case kindDir, kindFile:
		mode, changed := f.mode()
		name := f.text()
		if f.bad {
			return errMalformed
		}
		if kind == kindDir {
			return r.enter(name, mode, changed)
		}
		return r.create(name, mode, changed)
	case kindUp:
		return r.leave()
	case kindLink:
		name, target := f.text(), f.text()
		if f.bad {
			return errMalformed
		}
		return r.symlink(name, target)
	case kindBlock:
		offset := f.uint64()
		data := f.data()
		if f.bad || offset > math.MaxInt64-MaxBatch || int64(offset) < r.file.end {
			return errMalformed
		}
		r.file.sum.add(int64(offset), data)
		r.file.end = int64(offset) + int64(len(data))
		if _, err := r.file.WriteAt(data, int64(offset)); err != nil {
			return r.fail("write", r.file.name, err)
		}
		return nil
	case kindEnd:
		size, sum := f.uint64(), checksum(f.uint64())
		if f.bad || size > math.MaxInt64 || int64(size) < r.file.end {
			return errMalformed
		}
		return r.complete(int64(size), sum)
	}
	return errMalformed
}

// Close ends the writing. If the stream is not complete, Close removes the copy if it did not exist before, and
// returns an error that says what is left. Otherwise it removes only the file that is not complete.
func (r *Receiver) Close() error {
	if r.file != nil {
		r.file.Close()
		if r.file.temporary != "" {
			r.in().root.Remove(r.file.temporary)
		}
	}
	var err error
	switch {
	case r.done || len(r.levels) == 0:
	case r.made != "":
		if failed := r.levels[0].root.RemoveAll(r.made); failed != nil {
			err = fmt.Errorf("an incomplete copy is left: %w", failed)
		}
	case r.count > 0:
		err = fmt.Errorf("what existed before has got %d of the copied entries", r.count)
	}
	for _, l := range r.levels {
		l.root.Close()
	}
	r.levels = nil
	return err
}
