package filetree

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// Send reads what is at a path: a regular file, a symbolic link, or a directory with all that is in it. It
// follows no symbolic link. It calls emit with each batch of the stream, and may change a batch during the
// call of emit after the next one. It fails if there is a file of another kind, or if a file changes while it
// is read.
func Send(path string, emit func(batch []byte) error) error {
	// A path such as DIR/. leads to the directory itself.
	parent, err := os.OpenRoot(filepath.Dir(filepath.Clean(path)))
	if err != nil {
		return err
	}
	defer parent.Close()
	s := &sender{emit: emit, dir: filepath.Dir(filepath.Clean(path))}
	name := filepath.Base(filepath.Clean(path))
	if filepath.Clean(path) == ".." || name == ".." || name == string(filepath.Separator) {
		if parent, err = os.OpenRoot(path); err != nil {
			return err
		}
		defer parent.Close()
		name = "."
	}
	if err := s.entry(parent, name, ""); err != nil {
		return err
	}
	return s.end()
}

// SendFile sends an open regular file as Send does, with permissions of the caller's choice.
func SendFile(f *os.File, perm fs.FileMode, emit func(batch []byte) error) error {
	s := &sender{emit: emit}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if err := s.file(f, info, perm, ""); err != nil {
		return err
	}
	return s.end()
}

type sender struct {
	emit  func(batch []byte) error
	batch []byte
	other []byte // the batch before, which the receiver may still read
	dir   string // of the entry that is read, for errors
	depth int
}

// fail returns an error about an entry of the present directory.
func (s *sender) fail(op, name string, err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		err = e.Err
	}
	return &fs.PathError{Op: op, Path: filepath.Join(s.dir, name), Err: err}
}

// entry sends what has a name in a directory. The stream calls it as.
func (s *sender) entry(in *os.Root, name, as string) error {
	info, err := in.Lstat(name)
	if err != nil {
		return s.fail("lstat", name, err)
	}
	switch m := info.Mode(); {
	case m.IsDir():
		return s.directory(in, name, as, info)
	case m.IsRegular():
		// Something else may be there by now. On 32-bit processors, os.Root leaves O_LARGEFILE out.
		f, err := in.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_LARGEFILE, 0)
		if err != nil {
			return s.fail("open", name, err)
		}
		defer f.Close()
		opened, err := f.Stat()
		if err == nil && !os.SameFile(info, opened) {
			err = errChanged
		}
		if err == nil {
			err = s.file(f, opened, opened.Mode(), as)
		}
		if err != nil && !errors.Is(err, errEmit) {
			return s.fail("copy", name, err)
		}
		return err
	case m&fs.ModeSymlink != 0:
		target, err := in.Readlink(name)
		if err != nil {
			return s.fail("readlink", name, err)
		}
		b, err := s.record(kindLink, 8+len(as)+len(target))
		if err == nil {
			s.batch = appendString(appendString(b, as), target)
		}
		return err
	default:
		return s.fail("copy", name, fmt.Errorf("it is %s: only regular files, directories and symbolic links can be copied", kindOf(m)))
	}
}

func (s *sender) directory(in *os.Root, name, as string, info fs.FileInfo) error {
	if s.depth++; s.depth > MaxDepth {
		return s.fail("copy", name, fmt.Errorf("more than %d directories lie in each other", MaxDepth))
	}
	dir, err := in.OpenRoot(name)
	if err != nil {
		return s.fail("open", name, err)
	}
	defer dir.Close()
	f, err := dir.Open(".")
	if err != nil {
		return s.fail("open", name, err)
	}
	entries, err := f.ReadDir(-1)
	f.Close()
	if err != nil {
		return s.fail("readdir", name, err)
	}
	slices.SortFunc(entries, func(a, b fs.DirEntry) int {
		if a.Name() < b.Name() {
			return -1
		}
		return 1
	})
	b, err := s.record(kindDir, 16+len(as))
	if err != nil {
		return err
	}
	s.batch = appendString(appendMode(b, info, info.Mode()), as)
	outer := s.dir
	s.dir = filepath.Join(outer, name)
	for _, e := range entries {
		if err := s.entry(dir, e.Name(), e.Name()); err != nil {
			return err
		}
	}
	s.dir = outer
	s.depth--
	s.batch, err = s.record(kindUp, 0)
	return err
}

var errChanged = errors.New("it has changed while it was copied")

// smallBlock is the least size in bytes of a block that is not the last one before a hole.
const smallBlock = 64 << 10

func (s *sender) file(f *os.File, info fs.FileInfo, mode fs.FileMode, as string) error {
	b, err := s.record(kindFile, 16+len(as))
	if err != nil {
		return err
	}
	s.batch = appendString(appendMode(b, info, mode), as)
	start := len(s.batch)
	var sum checksum
	size := info.Size()
	if size == 0 {
		// A file of /proc or /sys has a size of 0 and content.
		if size, err = s.untilEnd(f, &sum); err != nil {
			return err
		}
	}
	if err := s.blocks(f, info.Size(), &sum); err != nil {
		return err
	}
	if err := s.unchanged(f, info, start, sum); err != nil {
		return err
	}
	b, err = s.record(kindEnd, 16)
	if err == nil {
		b = binary.LittleEndian.AppendUint64(b, uint64(size))
		s.batch = binary.LittleEndian.AppendUint64(b, uint64(sum))
	}
	return err
}

// blocks sends the first size bytes of a file without its holes.
func (s *sender) blocks(f *os.File, size int64, sum *checksum) error {
	for at := int64(0); at < size; {
		// The file's data from here to the next hole. A file system that does not know its holes says that all
		// is data.
		from, to := at, size
		if data, err := f.Seek(at, unix.SEEK_DATA); err == nil {
			from = data
			if hole, err := f.Seek(data, unix.SEEK_HOLE); err == nil {
				to = min(hole, size)
			}
		} else if errors.Is(err, unix.ENXIO) {
			break // a hole up to the end
		}
		for at = from; at < to; {
			n, err := s.block(f, at, int(min(to-at, MaxBatch)), sum)
			if err != nil {
				return err
			}
			if n == 0 {
				return errChanged
			}
			at += int64(n)
		}
	}
	return nil
}

// unchanged returns errChanged if the content of a file may be another one than what was sent. A new
// modification time alone says little: touch sets it, and so does a cache that marks a file as used. The
// file is then read a second time, in blocks that begin where those did that were sent: the first one was
// appended to a batch of start bytes.
func (s *sender) unchanged(f *os.File, info fs.FileInfo, start int, sent checksum) error {
	now, err := f.Stat()
	if err != nil || now.Size() == info.Size() && now.ModTime().Equal(info.ModTime()) {
		return err
	}
	if now.Size() != info.Size() || info.Size() == 0 {
		return errChanged
	}
	again := sender{emit: func([]byte) error { return nil }, batch: make([]byte, start, MaxBatch)}
	var sum checksum
	if err := again.blocks(f, info.Size(), &sum); err != nil {
		return err
	}
	if sum != sent {
		return errChanged
	}
	return nil
}

// block sends up to n bytes of a file, and returns how many: 0 only at the file's end.
func (s *sender) block(f *os.File, at int64, n int, sum *checksum) (int, error) {
	const header = 1 + 8 + 4
	if MaxBatch-len(s.batch)-header < min(n, smallBlock) {
		if err := s.flush(); err != nil {
			return 0, err
		}
	}
	start := len(s.batch) + header
	data := s.batch[start:min(start+n, MaxBatch)]
	n, err := f.ReadAt(data, at)
	if n == 0 {
		if err == io.EOF {
			err = nil
		}
		return 0, err
	}
	data = data[:n]
	sum.add(at, data)
	s.batch = append(s.batch, kindBlock)
	s.batch = binary.LittleEndian.AppendUint64(s.batch, uint64(at))
	s.batch = binary.LittleEndian.AppendUint32(s.batch, uint32(n))
	s.batch = s.batch[:start+n]
	return n, nil
}

// untilEnd sends what can be read of a file, and returns its size.
func (s *sender) untilEnd(f *os.File, sum *checksum) (size int64, err error) {
	for {
		n, err := s.block(f, size, MaxBatch, sum)
		if errors.Is(err, unix.EAGAIN) {
			return 0, errors.New("it has no end: a read waits for more") // such as /proc/kmsg
		}
		if n == 0 {
			return size, err
		}
		size += int64(n)
	}
}

// record begins a record with n bytes of fields, which the caller appends.
func (s *sender) record(kind byte, n int) ([]byte, error) {
	if len(s.batch)+1+n > MaxBatch {
		if err := s.flush(); err != nil {
			return nil, err
		}
	}
	if s.batch == nil {
		s.batch = append(make([]byte, 0, MaxBatch), more)
	}
	s.batch = append(s.batch, kind)
	return s.batch, nil
}

// errEmit marks an error of emit, which is not about a file.
var errEmit = errors.New("")

func (s *sender) flush() error {
	if err := s.emit(s.batch); err != nil {
		return fmt.Errorf("%w%w", errEmit, err)
	}
	s.batch, s.other = s.other, s.batch
	if s.batch == nil {
		s.batch = make([]byte, 0, MaxBatch)
	}
	s.batch = append(s.batch[:0], more)
	return nil
}

func (s *sender) end() error {
	s.batch[0] = last
	return s.flush()
}
