package harness

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"path"
	"slices"
	"strings"
	"time"

	"guesthouse.example/internal/wire"
)

// A guestFS is the file system of a guest. See Machine.FS.
type guestFS struct{ m *Machine }

var _ interface {
	fs.StatFS
	fs.ReadDirFS
	fs.ReadFileFS
	fs.ReadLinkFS
} = guestFS{}

// lookWithin bounds an access to the guest's files, in the machine's time.
const lookWithin = 30 * time.Second

// look asks the guest's agent about a file.
func (g guestFS) look(op, name string, r wire.LookRequest) ([]byte, error) {
	if !fs.ValidPath(name) {
		return nil, &fs.PathError{Op: op, Path: name, Err: fs.ErrInvalid}
	}
	ctx, cancel := g.m.Within(context.Background(), lookWithin)
	defer cancel()
	r.Path = path.Join("/", name)
	data, err := g.m.vm.Look(ctx, r)
	if err != nil {
		return nil, &fs.PathError{Op: op, Path: name, Err: err}
	}
	return data, nil
}

// infos asks for descriptions of files.
func (g guestFS) infos(op, name string, r wire.LookRequest) ([]wire.FileInfo, error) {
	data, err := g.look(op, name, r)
	if err != nil {
		return nil, err
	}
	all, err := wire.DecodeFileInfos(data)
	if err != nil {
		return nil, &fs.PathError{Op: op, Path: name, Err: err}
	}
	return all, nil
}

func (g guestFS) stat(op, name string, what byte) (wire.FileInfo, error) {
	all, err := g.infos(op, name, wire.LookRequest{What: what})
	if err == nil && len(all) != 1 {
		err = &fs.PathError{Op: op, Path: name, Err: errors.New("the guest's agent does not describe it")}
	}
	if err != nil {
		return wire.FileInfo{}, err
	}
	all[0].Base = path.Base(name)
	return all[0], nil
}

func (g guestFS) Stat(name string) (fs.FileInfo, error) {
	info, err := g.stat("stat", name, wire.Stat)
	if err != nil {
		return nil, err
	}
	return info, nil
}

func (g guestFS) Lstat(name string) (fs.FileInfo, error) {
	info, err := g.stat("lstat", name, wire.Lstat)
	if err != nil {
		return nil, err
	}
	return info, nil
}

func (g guestFS) ReadLink(name string) (string, error) {
	target, err := g.look("readlink", name, wire.LookRequest{What: wire.ReadLink})
	return string(target), err
}

func (g guestFS) ReadDir(name string) ([]fs.DirEntry, error) {
	return readPages(name, func(offset int) ([]wire.FileInfo, error) {
		return g.infos("readdir", name, wire.LookRequest{What: wire.ReadDir, Offset: int64(offset)})
	})
}

// The guest chooses how many names a directory has, and the names.
const (
	maxReadDir = 1 << 18 // names
	maxName    = 1024    // bytes, the greatest limit of Linux's file systems
)

// readPages reads the pages of a directory until one is empty.
func readPages(name string, next func(offset int) ([]wire.FileInfo, error)) (entries []fs.DirEntry, err error) {
	for {
		page, err := next(len(entries))
		if err != nil || len(page) == 0 {
			return entries, err
		}
		if len(entries)+len(page) > maxReadDir {
			return entries, &fs.PathError{Op: "readdir", Path: name, Err: fmt.Errorf("it has more than the %d names that ReadDir returns", maxReadDir)}
		}
		for _, info := range page {
			if base := info.Base; base == "" || base == "." || base == ".." || len(base) > maxName || strings.ContainsAny(base, "/\x00") {
				return entries, &fs.PathError{Op: "readdir", Path: name, Err: fmt.Errorf("the guest's agent sent the name %.300q", base)}
			}
			entries = append(entries, fs.FileInfoToDirEntry(info))
		}
	}
}

// maxReadFile is the size in bytes of the longest file that ReadFile returns. The guest chooses both the size that
// a file has and the bytes that it sends.
const maxReadFile = 256 << 20

func (g guestFS) ReadFile(name string) ([]byte, error) {
	info, err := g.stat("open", name, wire.Stat)
	if err != nil {
		return nil, err
	}
	f := guestFile{file: file{g, name, info}}
	var data []byte
	for size := info.Size(); ; size = int64(len(data)) {
		if size > maxReadFile {
			return nil, &fs.PathError{Op: "read", Path: name, Err: fmt.Errorf("it is longer than the %d MiB that ReadFile returns", maxReadFile>>20)}
		}
		if data == nil { // the size may be that of a file of /proc, which is 0
			data = make([]byte, 0, max(size, 0)+1)
		}
		n, err := f.read(data[len(data):cap(data)], int64(len(data)))
		data = data[:len(data)+n]
		if err != nil || n == 0 {
			return data, err
		}
		data = slices.Grow(data, 4<<10)
	}
}

func (g guestFS) Open(name string) (fs.File, error) {
	info, err := g.stat("open", name, wire.Stat)
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		return &guestDir{file: file{g, name, info}}, nil
	}
	f := &guestFile{file: file{g, name, info}}
	f.buffered = bufio.NewReaderSize(io.NewSectionReader(f, 0, math.MaxInt64), wire.MaxRead)
	return f, nil
}

// A file is an open file of a guestFS.
type file struct {
	fs   guestFS
	name string
	info wire.FileInfo
}

func (f file) Stat() (fs.FileInfo, error) { return f.info, nil }
func (f file) Close() error               { return nil } // the guest keeps no file open

type guestFile struct {
	file
	buffered *bufio.Reader
}

func (f *guestFile) Read(b []byte) (int, error) { return f.buffered.Read(b) }

// read reads with one request.
func (f *guestFile) read(b []byte, at int64) (int, error) {
	data, err := f.fs.look("read", f.name, wire.LookRequest{
		What: wire.ReadFile, Offset: at, Length: min(len(b), wire.MaxRead), Inode: f.info.Inode})
	return copy(b, data), err
}

func (f *guestFile) ReadAt(b []byte, at int64) (done int, err error) {
	if at < 0 {
		return 0, &fs.PathError{Op: "read", Path: f.name, Err: fs.ErrInvalid}
	}
	for done < len(b) {
		n, err := f.read(b[done:], at+int64(done))
		if done += n; err != nil {
			return done, err
		}
		if n == 0 {
			return done, io.EOF
		}
	}
	return done, nil
}

type guestDir struct {
	file
	entries []fs.DirEntry // that ReadDir has not returned; nil before its first call
	read    bool
}

func (d *guestDir) Read([]byte) (int, error) {
	return 0, &fs.PathError{Op: "read", Path: d.name, Err: errors.New("it is a directory")}
}

func (d *guestDir) ReadDir(n int) (page []fs.DirEntry, err error) {
	if !d.read {
		if d.entries, err = d.fs.ReadDir(d.name); err != nil {
			return nil, err
		}
		d.read = true
	}
	if n <= 0 {
		n = len(d.entries)
	} else if len(d.entries) == 0 {
		return nil, io.EOF
	}
	n = min(n, len(d.entries))
	page, d.entries = d.entries[:n], d.entries[n:]
	return page, nil
}
