package hostfs

import (
	"os"
	"strings"
	"sync"

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
	case opDestroy:
		return nil
	case opRelease, opReleasedir:
		d.release(in.u64())
		return nil
	case opSetattr, opSymlink, opMkdir, opUnlink, opRmdir, opRename, opRename2, opLink, opWrite, opCreate, opFallocate, opMknod:
		if !d.writable {
			return unix.EROFS
		}
	}
	switch q.op {
	case opRead, opReaddirplus, opFsync, opFsyncdir, opLseek, opWrite, opFallocate:
		h := d.handle(in.u64())
		if h == nil {
			return unix.EBADF
		}
		return d.onHandle(q.op, h, in, r)
	}
	n := d.nodes.get(q.node)
	if n == nil {
		return unix.ESTALE
	}
	return d.onNode(q, n, in, r)
}

// onNode answers a request about a file, open or not.
func (d *Dir) onNode(q request, n *node, in *body, r *reply) error {
	switch q.op {
	case opLookup:
		return d.entry(n, in.text(), r, nil)
	case opGetattr:
		return d.getattr(n, in, r)
	case opReadlink:
		return d.readlink(n, r)
	case opOpen:
		return d.open(n, q.unique, in, r)
	case opOpendir:
		return d.opendir(n, r)
	case opStatfs:
		return d.statfs(r)
	case opSetattr:
		return d.setattr(n, in, r)
	case opCreate:
		return d.create(n, q.unique, in, r)
	case opMkdir:
		return d.mkdir(n, in, r)
	case opSymlink:
		name, target := in.text(), in.text()
		return d.entry(n, name, r, func(dir int, name string) error { return unix.Symlinkat(target, dir, name) })
	case opLink:
		return d.link(n, in, r)
	case opUnlink:
		return d.remove(n, in.text(), 0)
	case opRmdir:
		return d.remove(n, in.text(), unix.AT_REMOVEDIR)
	case opRename:
		return d.rename(n, in.u64(), 0, in)
	case opRename2:
		to, flags := in.u64(), in.u32()
		in.u32()
		return d.rename(n, to, flags, in)
	case opMknod:
		return unix.EPERM // a guest makes no devices, pipes or sockets on the host
	}
	// The kernel does not ask again: FLUSH, because writes have gone through already; extended attributes, locks
	// (which it keeps itself) and all that is newer.
	return unix.ENOSYS
}

// badName reports whether a name can be no entry of a directory.
func badName(name string) bool {
	return name == "" || name == "." || name == ".." || strings.Contains(name, "/")
}

// inDir calls a function with the pinned directory of a name. The lock is the one of renaming, for reading or for
// writing, so that no name changes between the call on the host and the change of the nodes.
func (d *Dir) inDir(n *node, name string, lock sync.Locker, call func(dir int) error) error {
	if badName(name) {
		return unix.EINVAL
	}
	lock.Lock()
	defer lock.Unlock()
	dir, _, err := d.pin(n)
	if err != nil {
		return err
	}
	defer dir.Close()
	return call(int(dir.Fd()))
}

// entry appends the entry of a name in a directory, after it has been made, if a function is given that makes it.
func (d *Dir) entry(n *node, name string, r *reply, create func(dir int, name string) error) error {
	return d.inDir(n, name, d.renaming.RLocker(), func(dir int) error {
		if create != nil {
			if err := create(dir, name); err != nil {
				return err
			}
		}
		var st unix.Stat_t
		if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
		entered, err := d.nodes.enter(n, name, &st)
		if err != nil {
			return err
		}
		r.entry(entered, &st, &d.own)
		return nil
	})
}

func (d *Dir) getattr(n *node, in *body, r *reply) error {
	flags := in.u32()
	in.u32()
	var h *handle
	if id := in.u64(); flags&getattrFH != 0 {
		h = d.handle(id)
	}
	f, st, err := d.reach(n, h)
	if err != nil {
		return err
	}
	f.Close()
	d.nodes.tell(n, st)
	r.attrOut(st, &d.own)
	return nil
}

// reach returns a descriptor of a node's file: pinned, or of an open file that has no name any more. The caller
// must close it.
func (d *Dir) reach(n *node, h *handle) (*os.File, *unix.Stat_t, error) {
	f, st, err := d.pin(n)
	if err == nil {
		return f, st, nil
	}
	if h == nil {
		if h = d.nodes.anyOpen(n); h == nil {
			return nil, nil, err
		}
	}
	st = new(unix.Stat_t)
	err = control(h.file, func(fd int) error {
		again, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return err
		}
		f = os.NewFile(uintptr(again), h.file.Name())
		return unix.Fstat(again, st)
	})
	if err != nil {
		if f != nil {
			f.Close()
		}
		return nil, nil, err
	}
	return f, st, nil
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
