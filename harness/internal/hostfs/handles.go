package hostfs

import (
	"errors"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// maxHandles bounds the files that a guest keeps open in one directory, because their descriptors
// belong to this process.
const maxHandles = 4096

// maxListed bounds the names of directories that are kept for all handles, in bytes. A million files take 40 MB.
const maxListed = 64 << 20

// A handle is an open file or directory.
type handle struct {
	node     *node
	file     *os.File
	writable bool

	mu    sync.Mutex
	names []string // of a directory, from the last read of its start

	// The Dir's mu guards these.
	listed   int // bytes of names
	released bool
}

// keep makes a handle of an open file.
func (d *Dir) keep(h *handle) (uint64, error) {
	d.mu.Lock()
	if len(d.handles) >= maxHandles {
		d.mu.Unlock()
		h.file.Close()
		return 0, unix.ENFILE
	}
	d.last++
	id := d.last
	d.handles[id] = h
	d.mu.Unlock()
	d.nodes.opened(h)
	return id, nil
}

func (d *Dir) handle(id uint64) *handle {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.handles[id]
}

func (d *Dir) release(id uint64) {
	d.mu.Lock()
	h := d.handles[id]
	if h != nil {
		delete(d.handles, id)
		d.listed -= h.listed
		h.released = true
	}
	d.mu.Unlock()
	if h != nil {
		d.nodes.closed(h)
		h.file.Close()
	}
}

// open opens a regular file. The kernel keeps the pages that it has if the file is as it was told last.
func (d *Dir) open(n *node, unique uint64, in *body, r *reply) error {
	flags := int(in.u32())
	if flags&unix.O_ACCMODE != unix.O_RDONLY && !d.writable || flags&unix.O_TRUNC != 0 && !d.writable {
		return unix.EROFS
	}
	pinned, st, err := d.pin(n)
	if err != nil {
		return err
	}
	defer pinned.Close()
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return unix.ENXIO
	}
	f, err := os.OpenFile(procPath(pinned), openFlags(flags)|flags&unix.O_TRUNC, 0)
	if err != nil {
		return err
	}
	return d.opened(n, unique, f, flags, r)
}

// openFlags returns the flags that count on the host. The guest's kernel has seen to the others:
// O_APPEND, for example, is the offset of a write.
func openFlags(flags int) int {
	return flags&(unix.O_ACCMODE|unix.O_SYNC|unix.O_DSYNC) | unix.O_NONBLOCK | unix.O_NOCTTY
}

// opened answers with a handle of an open file.
func (d *Dir) opened(n *node, unique uint64, f *os.File, flags int, r *reply) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		f.Close()
		return err
	}
	id, err := d.keep(&handle{node: n, file: f, writable: flags&unix.O_ACCMODE != unix.O_RDONLY})
	if err != nil {
		return err
	}
	if d.nodes.tell(n, &st) {
		r.forgetAttributes(n.id, unique)
		r.open(id, 0)
	} else {
		r.open(id, keepCache)
	}
	return nil
}

func (d *Dir) opendir(n *node, r *reply) error {
	pinned, st, err := d.pin(n)
	if err != nil {
		return err
	}
	defer pinned.Close()
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return unix.ENOTDIR
	}
	f, err := os.OpenFile(procPath(pinned), unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	id, err := d.keep(&handle{node: n, file: f})
	if err != nil {
		return err
	}
	r.open(id, 0)
	return nil
}

// onHandle answers a request about an open file.
func (d *Dir) onHandle(op uint32, h *handle, in *body, r *reply) error {
	switch op {
	case opRead:
		return d.read(h, in, r)
	case opReaddirplus:
		return d.readdir(h, in, r)
	case opLseek:
		return d.seek(h, in, r)
	case opWrite:
		return d.write(h, in, r)
	case opFallocate:
		return d.fallocate(h, in)
	default: // FSYNC and FSYNCDIR
		return d.sync(h)
	}
}

func (d *Dir) read(h *handle, in *body, r *reply) error {
	offset, size := int64(in.u64()), int(in.u32())
	if size > MaxData || offset < 0 {
		return unix.EINVAL
	}
	start := len(r.b)
	r.b = append(r.b, make([]byte, size)...)
	k, err := h.file.ReadAt(r.b[start:], offset)
	r.b = r.b[:start+k]
	if k > 0 || errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

func (d *Dir) sync(h *handle) error {
	if !d.writable {
		return nil
	}
	return h.file.Sync()
}

// seek finds data and holes.
func (d *Dir) seek(h *handle, in *body, r *reply) error {
	offset, whence := int64(in.u64()), int(in.u32())
	if whence != unix.SEEK_DATA && whence != unix.SEEK_HOLE {
		return unix.EINVAL
	}
	return control(h.file, func(fd int) error {
		at, err := unix.Seek(fd, offset, whence)
		r.u64(uint64(at))
		return err
	})
}

// list sets the names of a directory.
func (d *Dir) list(h *handle) error {
	h.names = []string{".", ".."}
	size := 0
	if _, err := h.file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	for {
		names, err := h.file.Readdirnames(1024)
		for _, name := range names {
			size += len(name) + 16 // and the string itself
		}
		if full := d.setListed(h, size); full != nil {
			h.names = nil
			return full
		}
		h.names = append(h.names, names...)
		switch {
		case err == io.EOF || errors.Is(err, unix.ENOENT): // ENOENT: the directory has been removed
			return nil
		case err != nil:
			return err
		}
	}
}

// setListed notes how many bytes the names of a directory have. It returns an error if they are too many.
func (d *Dir) setListed(h *handle, size int) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch listed := d.listed - h.listed + size; {
	case h.released:
		return unix.EBADF
	case listed > maxListed:
		d.listed -= h.listed
		h.listed = 0
		return unix.ENOMEM
	default:
		d.listed, h.listed = listed, size
		return nil
	}
}

// readdir lists a directory with the attributes of its entries. The offset of an entry is its index in a list that
// is made when the directory is read from its start, so that a reader sees each name once.
func (d *Dir) readdir(h *handle, in *body, r *reply) error {
	n, offset, size := h.node, in.u64(), int(in.u32())
	if size > MaxData {
		return unix.EINVAL
	}
	d.renaming.RLock() // the node must not get another place between a name's stat and its entry
	defer d.renaming.RUnlock()
	h.mu.Lock()
	defer h.mu.Unlock()
	if offset == 0 {
		if err := d.list(h); err != nil {
			return err
		}
	}
	limit := len(r.b) + size
	_, named := d.nodes.path(n)
	for i := offset; i < uint64(len(h.names)); i++ {
		name := h.names[i]
		if len(r.b)+entryLen(name) > limit {
			break
		}
		var st unix.Stat_t
		err := control(h.file, func(fd int) error { return unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW) })
		if err != nil {
			continue // it has been removed
		}
		var entered *node
		if named && !badName(name) {
			entered, _ = d.nodes.enter(n, name, &st)
		}
		if entered != nil {
			r.entry(entered, &st, &d.own)
		} else {
			r.b = append(r.b, make([]byte, entrySize)...) // no entry: the kernel does not enter it
		}
		if name == ".." {
			st.Ino = n.file.ino // what is above the root is none of the guest's business
		}
		r.dirent(st.Ino, i+1, st.Mode, name)
	}
	return nil
}

func (d *Dir) write(h *handle, in *body, r *reply) error {
	offset, size := int64(in.u64()), int(in.u32())
	in.take(20) // flags
	if offset < 0 || size != len(in.b) {
		return unix.EINVAL
	}
	k, err := h.file.WriteAt(in.b, offset)
	if k == 0 && err != nil {
		return err
	}
	r.u32(uint32(k))
	r.u32(0)
	return nil
}

func (d *Dir) fallocate(h *handle, in *body) error {
	offset, length, mode := int64(in.u64()), int64(in.u64()), in.u32()
	return control(h.file, func(fd int) error { return unix.Fallocate(fd, mode, offset, length) })
}
