package hostfs

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Answer answers a request. It appends to b what the kernel must get, which may be several messages,
// or nothing. It returns false if the request is malformed.
func (d *Dir) Answer(message, b []byte) ([]byte, bool) {
	q, ok := parse(message)
	if !ok {
		return b, false
	}
	in := &body{b: q.body}
	switch q.op {
	case opForget:
		d.nodes.forget(q.node, in.u64())
		return b, !in.short
	case opBatchForget:
		for n := in.u64() & 0xffffffff; n > 0 && !in.short; n-- {
			id := in.u64()
			d.nodes.forget(id, in.u64())
		}
		return b, !in.short
	}
	r := &reply{b: b}
	r.begin(q.unique)
	err := d.answer(q, in, r)
	if err == nil && in.short {
		err = unix.EINVAL
	}
	r.end(errnoOf(err))
	return r.b, true
}

// answer appends the body of the answer.
func (d *Dir) answer(q request, in *body, r *reply) error {
	switch q.op {
	case opInit:
		return d.init(in, r)
	case opDestroy:
		return nil
	case opRead:
		return d.read(in, r)
	case opRelease, opReleasedir:
		d.release(in.u64())
		return nil
	case opFsync, opFsyncdir:
		return d.sync(in)
	case opLseek:
		return d.seek(in, r)
	}
	n := d.nodes.get(q.node)
	if n == nil {
		return unix.ESTALE
	}
	switch q.op {
	case opLookup:
		return d.lookup(n, in.text(), r)
	case opGetattr:
		return d.getattr(n, in, r)
	case opReadlink:
		return d.readlink(n, r)
	case opOpen:
		return d.open(n, q.unique, in, r)
	case opOpendir:
		return d.opendir(n, r)
	case opReaddirplus:
		return d.readdir(n, in, r)
	case opStatfs:
		return d.statfs(r)
	case opSetattr, opSymlink, opMkdir, opUnlink, opRmdir, opRename, opRename2, opLink, opWrite, opCreate, opFallocate, opMknod:
		if !d.writable {
			return unix.EROFS
		}
		return d.change(q, n, in, r)
	}
	// The kernel does not ask again: FLUSH, because writes have gone through already; extended attributes, locks
	// (which it keeps itself) and all that is newer.
	return unix.ENOSYS
}

func (d *Dir) init(in *body, r *reply) error {
	if in.u32() != major {
		return unix.EPROTO
	}
	minorOfKernel, readahead, flags := in.u32(), in.u32(), in.u32()
	r.u32(major)
	r.u32(min(minor, minorOfKernel))
	r.u32(max(readahead, maxReadahead)) // the kernel takes the smaller one
	r.u32(flags & (initAsyncRead | initAtomicTrunc | initBigWrites | initAutoInval | initReaddirplus | initParallelDirop | initMaxPages))
	r.u16(16) // requests in the background
	r.u16(12) // of these, before the kernel thinks that they congest
	r.u32(MaxData)
	r.u32(1) // nanosecond: the resolution of times
	r.u16(MaxData / 4096)
	r.u16(0)
	for range 8 {
		r.u32(0)
	}
	return nil
}

// badName reports whether a name can be no entry of a directory.
func badName(name string) bool {
	return name == "" || name == "." || name == ".." || contains(name, '/')
}

func contains(s string, c byte) bool {
	for i := range len(s) {
		if s[i] == c {
			return true
		}
	}
	return false
}

// entry appends the entry of a name in a pinned directory.
func (d *Dir) entry(n *node, dir *os.File, name string, r *reply) error {
	var st unix.Stat_t
	if err := unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	r.entry(d.nodes.enter(n, name, &st), &st, &d.own)
	return nil
}

func (d *Dir) lookup(n *node, name string, r *reply) error {
	if badName(name) {
		return unix.EINVAL
	}
	d.renaming.RLock()
	defer d.renaming.RUnlock()
	dir, _, err := d.pin(n)
	if err != nil {
		return err
	}
	defer dir.Close()
	return d.entry(n, dir, name, r)
}

func (d *Dir) getattr(n *node, in *body, r *reply) error {
	flags := in.u32()
	in.u32()
	var h *handle
	if id := in.u64(); flags&getattrFH != 0 {
		h = d.handle(id)
	}
	st, err := d.stat(n, h)
	if err != nil {
		return err
	}
	d.nodes.tell(n, st)
	r.attrOut(st, &d.own)
	return nil
}

// stat returns the attributes of a node, by a handle if the node has no name any more.
func (d *Dir) stat(n *node, h *handle) (*unix.Stat_t, error) {
	if h == nil {
		f, st, err := d.pin(n)
		if err == nil {
			f.Close()
			return st, nil
		}
		if h = d.nodes.anyOpen(n, false); h == nil {
			return nil, err
		}
	}
	st := new(unix.Stat_t)
	return st, control(h.file, func(fd int) error { return unix.Fstat(fd, st) })
}

// control calls a function with a descriptor that nobody closes meanwhile.
func control(f *os.File, call func(fd int) error) (err error) {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	if closed := conn.Control(func(fd uintptr) { err = call(int(fd)) }); closed != nil {
		return closed
	}
	return err
}

func (d *Dir) readlink(n *node, r *reply) error {
	f, _, err := d.pin(n)
	if err != nil {
		return err
	}
	defer f.Close()
	target := make([]byte, 4096) // PATH_MAX
	k, err := unix.Readlinkat(int(f.Fd()), "", target)
	if err != nil {
		return err
	}
	r.b = append(r.b, target[:k]...)
	return nil
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

func (d *Dir) read(in *body, r *reply) error {
	h := d.handle(in.u64())
	offset, size := int64(in.u64()), int(in.u32())
	if h == nil {
		return unix.EBADF
	}
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

func (d *Dir) sync(in *body) error {
	h := d.handle(in.u64())
	if h == nil {
		return unix.EBADF
	}
	if !d.writable {
		return nil
	}
	return h.file.Sync()
}

// seek finds data and holes.
func (d *Dir) seek(in *body, r *reply) error {
	h := d.handle(in.u64())
	offset, whence := int64(in.u64()), int(in.u32())
	if h == nil {
		return unix.EBADF
	}
	if whence != unix.SEEK_DATA && whence != unix.SEEK_HOLE {
		return unix.EINVAL
	}
	return control(h.file, func(fd int) error {
		at, err := unix.Seek(fd, offset, whence)
		r.u64(uint64(at))
		return err
	})
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

// readdir lists a directory with the attributes of its entries. The offset of an entry is its index in a list that
// is made when the directory is read from its start, so that a reader sees each name once.
func (d *Dir) readdir(n *node, in *body, r *reply) error {
	h := d.handle(in.u64())
	offset, size := in.u64(), int(in.u32())
	if h == nil || h.node != n {
		return unix.EBADF
	}
	if size > MaxData {
		return unix.EINVAL
	}
	d.renaming.RLock() // the node must not get another place between a name's stat and its entry
	defer d.renaming.RUnlock()
	h.mu.Lock()
	defer h.mu.Unlock()
	if offset == 0 {
		if _, err := h.file.Seek(0, io.SeekStart); err != nil {
			return err
		}
		names, err := h.file.Readdirnames(-1)
		if err != nil && !errors.Is(err, unix.ENOENT) { // ENOENT: the directory has been removed
			return err
		}
		h.names = append([]string{".", ".."}, names...)
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
		if badName(name) || !named {
			if name == ".." {
				st.Ino = n.file.ino // what is above the root is none of the guest's business
			}
			r.b = append(r.b, make([]byte, entrySize)...) // no entry: the kernel does not enter it
		} else {
			r.entry(d.nodes.enter(n, name, &st), &st, &d.own)
		}
		r.dirent(st.Ino, i+1, st.Mode, name)
	}
	return nil
}

func (d *Dir) statfs(r *reply) error {
	f, err := d.root.OpenFile(".", unix.O_PATH, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil {
		return err
	}
	for _, v := range []uint64{st.Blocks, st.Bfree, st.Bavail, st.Files, st.Ffree} {
		r.u64(v)
	}
	for _, v := range []uint32{uint32(st.Bsize), uint32(st.Namelen), uint32(st.Frsize), 0, 0, 0, 0, 0, 0, 0} {
		r.u32(v)
	}
	return nil
}
