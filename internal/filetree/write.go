package filetree

import (
	"cmp"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

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
	name      string
	temporary string // its name until it is complete; empty for an unnamed file
	mode      fs.FileMode
	time      time.Time
	sum       checksum
	end       int64 // of the last block
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

func (r *Receiver) symlink(name, target string) error {
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
	r.count++
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
	return nil
}

func (r *Receiver) create(name string, mode fs.FileMode, changed time.Time) error {
	name, err := r.place(name, false)
	if err != nil {
		return err
	}
	const write = os.O_WRONLY | unix.O_LARGEFILE // which os.Root leaves out on 32-bit processors
	root := r.in().root
	f := &incoming{name: name, mode: mode, time: changed}
	if r.to.Unnamed {
		f.File, err = root.OpenFile(".", write|unix.O_TMPFILE, 0o600)
	}
	if f.File == nil { // or the file system has no unnamed files
		f.temporary = temporary + rand.Text()
		f.File, err = root.OpenFile(f.temporary, write|os.O_CREATE|os.O_EXCL, 0o600)
	}
	if err != nil {
		return r.fail("create", name, err)
	}
	r.file = f
	return nil
}

// link gives an unnamed file its name, or a temporary name if something has that name.
func (r *Receiver) link(f *incoming) error {
	dir, err := r.in().root.Open(".")
	if err != nil {
		return err
	}
	defer dir.Close()
	link := func(name string) error {
		return unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", f.Fd()), int(dir.Fd()), name, unix.AT_SYMLINK_FOLLOW)
	}
	err = link(f.name)
	if err == nil {
		r.isNew(f.name)
	}
	if err == unix.EEXIST {
		f.temporary = temporary + rand.Text()
		err = link(f.temporary)
	}
	return err
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
	if err == nil && f.temporary == "" {
		err = r.link(f)
	}
	if err == nil {
		err = root.Chtimes(cmp.Or(f.temporary, f.name), time.Time{}, f.time)
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
	if f.temporary != "" {
		if err := r.rename(f.temporary, f.name); err != nil {
			return err
		}
	}
	r.count++
	r.file = nil
	return nil
}
