package filetree

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
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

// A level is a directory whose entries arrive.
type level struct {
	root *os.Root
	path string // for errors
	name string // in the directory above
	mode fs.FileMode
	time time.Time
}

// An incoming is a file that is not complete.
type incoming struct {
	*os.File
	temporary, name string
	mode            fs.FileMode
	time            time.Time
	sum             checksum
	end             int64 // of the last block
}

// NewReceiver returns a receiver. The caller calls Close.
func NewReceiver(to Destination) *Receiver { return &Receiver{to: to} }

// Done reports whether the stream has ended and everything is written.
func (r *Receiver) Done() bool { return r.done }

var errMalformed = errors.New("malformed stream of files")

// fields takes a record's fields from a batch.
type fields struct {
	b   []byte
	bad bool
}

func (f *fields) take(n int) []byte {
	if f.bad || n < 0 || n > len(f.b) {
		f.bad = true
		return make([]byte, min(max(n, 0), 8))
	}
	taken := f.b[:n]
	f.b = f.b[n:]
	return taken
}

func (f *fields) uint32() uint32 { return binary.LittleEndian.Uint32(f.take(4)) }
func (f *fields) uint64() uint64 { return binary.LittleEndian.Uint64(f.take(8)) }
func (f *fields) data() []byte {
	n := f.uint32()
	if n > MaxBatch {
		f.bad = true
		return nil
	}
	return f.take(int(n))
}
func (f *fields) text() string { return string(f.data()) }
func (f *fields) mode() (fs.FileMode, time.Time) {
	return goMode(f.uint32()), time.Unix(0, int64(f.uint64()))
}

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
	case kindDir:
		mode, changed := f.mode()
		name := f.text()
		if f.bad {
			return errMalformed
		}
		return r.enter(name, mode, changed)
	case kindUp:
		return r.leave()
	case kindLink:
		name, target := f.text(), f.text()
		if f.bad {
			return errMalformed
		}
		return r.link(name, target)
	case kindFile:
		mode, changed := f.mode()
		name := f.text()
		if f.bad {
			return errMalformed
		}
		return r.create(name, mode, changed)
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

func (r *Receiver) in() *level { return &r.levels[len(r.levels)-1] }

func (r *Receiver) fail(op, name string, err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		err = e.Err
	}
	if e, ok := errors.AsType[*os.LinkError](err); ok {
		err = e.Err
	}
	return &fs.PathError{Op: op, Path: filepath.Join(r.in().path, name), Err: err}
}

// place opens the directory of the stream's first entry and returns the entry's name there. It checks the
// name of any other entry.
func (r *Receiver) place(name string, isDir bool) (string, error) {
	if len(r.levels) > 1 {
		if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
			return "", fmt.Errorf("%w: the name %q", errMalformed, name)
		}
		return name, nil
	}
	if len(r.levels) == 1 || name != "" {
		return "", errMalformed // a second entry beside the first
	}
	path := filepath.Clean(r.to.Path)
	dir, name := filepath.Dir(path), filepath.Base(path)
	switch info, err := os.Stat(r.to.Path); {
	case r.to.Exact:
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return "", err
		}
	case err == nil && info.IsDir():
		dir, name = path, r.to.Name
	case strings.HasSuffix(r.to.Path, "/") && (err == nil || !isDir):
		return "", &fs.PathError{Op: "copy to", Path: r.to.Path, Err: syscall.ENOTDIR}
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return "", err
	}
	r.levels = append(r.levels, level{root: root, path: dir})
	return name, nil
}

// enter makes a directory, unless there is one, and continues with its entries.
func (r *Receiver) enter(name string, mode fs.FileMode, changed time.Time) error {
	name, err := r.place(name, true)
	if err != nil {
		return err
	}
	if len(r.levels) > MaxDepth {
		return r.fail("mkdir", name, fmt.Errorf("more than %d directories lie in each other", MaxDepth))
	}
	in := r.in()
	switch info, err := in.root.Lstat(name); {
	case err == nil && !info.IsDir():
		return r.fail("mkdir", name, fmt.Errorf("it exists and is no directory: %w", syscall.ENOTDIR))
	case errors.Is(err, fs.ErrNotExist):
		if err := in.root.Mkdir(name, 0o700); err != nil {
			return r.fail("mkdir", name, err)
		}
		r.isNew(name)
	case err != nil:
		return r.fail("lstat", name, err)
	}
	root, err := in.root.OpenRoot(name)
	if err != nil {
		return r.fail("open", name, err)
	}
	r.levels = append(r.levels, level{root, filepath.Join(in.path, name), name, mode, changed})
	return nil
}

// isNew notes that the copy did not exist before.
func (r *Receiver) isNew(name string) {
	if len(r.levels) == 1 {
		r.made = name
	}
}

func (r *Receiver) leave() error {
	if len(r.levels) < 2 {
		return errMalformed
	}
	l := r.levels[len(r.levels)-1]
	err := l.root.Chmod(".", r.allowed(l.mode))
	if err == nil {
		err = l.root.Chtimes(".", time.Time{}, l.time)
	}
	if err != nil {
		return r.fail("chmod", "", err)
	}
	l.root.Close()
	r.levels = r.levels[:len(r.levels)-1]
	r.count++
	return nil
}

func (r *Receiver) allowed(mode fs.FileMode) fs.FileMode {
	if r.to.NoSetID {
		mode &^= fs.ModeSetuid | fs.ModeSetgid
	}
	return mode
}

// temporary is the beginning of the names of files that are not complete.
const temporary = ".guesthouse-"

func (r *Receiver) link(name, target string) error {
	name, err := r.place(name, false)
	if err != nil {
		return err
	}
	root, temporary := r.in().root, temporary+rand.Text()
	if err := root.Symlink(target, temporary); err != nil {
		return r.fail("symlink", name, err)
	}
	if err := r.rename(temporary, name); err != nil {
		root.Remove(temporary)
		return err
	}
	return nil
}

// rename gives a complete file or link its name.
func (r *Receiver) rename(temporary, name string) error {
	root := r.in().root
	info, err := root.Lstat(name)
	if err == nil && info.IsDir() {
		return r.fail("create", name, fmt.Errorf("it exists and is a directory: %w", syscall.EISDIR))
	}
	if err := root.Rename(temporary, name); err != nil {
		return r.fail("create", name, err)
	}
	if err != nil {
		r.isNew(name)
	}
	r.count++
	return nil
}

func (r *Receiver) create(name string, mode fs.FileMode, changed time.Time) error {
	name, err := r.place(name, false)
	if err != nil {
		return err
	}
	temporary := temporary + rand.Text()
	f, err := r.in().root.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return r.fail("create", name, err)
	}
	r.file = &incoming{File: f, temporary: temporary, name: name, mode: mode, time: changed}
	return nil
}

// complete checks the file that has arrived and gives it its mode, its time and its name.
func (r *Receiver) complete(size int64, sum checksum) error {
	f, root := r.file, r.in().root
	if f.sum != sum {
		return r.fail("write", f.name, errors.New("its checksum is wrong: the content was damaged on its way"))
	}
	err := f.Truncate(size)
	if err == nil {
		err = f.Chmod(r.allowed(f.mode))
	}
	if err == nil {
		err = root.Chtimes(f.temporary, time.Time{}, f.time)
	}
	if err != nil {
		return r.fail("write", f.name, err)
	}
	// Linux refuses to run a program that is open for writing (ETXTBSY). A child that is being started has
	// a copy of the descriptor until it runs its own program.
	syscall.ForkLock.RLock()
	err = f.Close()
	syscall.ForkLock.RUnlock()
	if err != nil {
		return r.fail("write", f.name, err)
	}
	if err := r.rename(f.temporary, f.name); err != nil {
		return err
	}
	r.file = nil
	return nil
}

// Close ends the writing. If the stream is not complete, Close removes the copy if it did not exist before, and
// returns an error that says what is left. Otherwise it removes only the file that is not complete.
func (r *Receiver) Close() error {
	if r.file != nil {
		r.file.Close()
		r.in().root.Remove(r.file.temporary)
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
