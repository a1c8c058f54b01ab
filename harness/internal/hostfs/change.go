package hostfs

import (
	"os"

	"golang.org/x/sys/unix"
)

// permissions are the bits of a mode that the guest can set. Setuid and setgid stay off: they would count on the
// host.
const permissions = 0o777 | unix.S_ISVTX

// pinEntry opens an entry of a directory with O_PATH. The caller must close it.
func pinEntry(dir int, name string) (*os.File, error) {
	fd, err := unix.Openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// chmod sets the mode of something new, to which the umask of this process has applied.
func chmod(dir int, name string, mode uint32) error {
	f, err := pinEntry(dir, name)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Chmod(procPath(f), mode&permissions)
}

func (d *Dir) mkdir(n *node, in *body, r *reply) error {
	mode := in.u32()
	in.u32() // the kernel has applied the umask
	return d.entry(n, in.text(), r, func(dir int, name string) error {
		if err := unix.Mkdirat(dir, name, mode&0o777); err != nil {
			return err
		}
		return chmod(dir, name, mode)
	})
}

func (d *Dir) link(n *node, in *body, r *reply) error {
	pinned, _, err := d.pin(d.nodes.get(in.u64()))
	if err != nil {
		return err
	}
	defer pinned.Close()
	return d.entry(n, in.text(), r, func(dir int, name string) error {
		return unix.Linkat(unix.AT_FDCWD, procPath(pinned), dir, name, unix.AT_SYMLINK_FOLLOW) // of /proc's link
	})
}

// create makes and opens a file, or opens one that is there already.
func (d *Dir) create(n *node, unique uint64, in *body, r *reply) error {
	flags, mode := int(in.u32()), in.u32()
	in.u32()
	in.u32()
	name := in.text()
	return d.inDir(n, name, d.renaming.RLocker(), func(dir int) error {
		common := openFlags(flags) | unix.O_NOFOLLOW | unix.O_CLOEXEC
		fd, err := unix.Openat(dir, name, common|unix.O_CREAT|unix.O_EXCL, mode&0o777)
		isNew := err == nil
		if err == unix.EEXIST && flags&unix.O_EXCL == 0 {
			fd, err = openExisting(dir, name, common|flags&unix.O_TRUNC)
		}
		if err != nil {
			return err
		}
		f := os.NewFile(uintptr(fd), name)
		if isNew {
			unix.Fchmod(fd, mode&permissions) // the file is ours; if this fails it has a stricter mode
		}
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			f.Close()
			return err
		}
		created, err := d.nodes.enter(n, name, &st)
		if err != nil {
			f.Close()
			return err
		}
		r.entry(created, &st, &d.own)
		if err := d.opened(created, unique, f, flags, r); err != nil {
			d.nodes.forget(created.id, 1)
			return err
		}
		return nil
	})
}

// openExisting opens a regular file of a directory.
func openExisting(dir int, name string, flags int) (int, error) {
	f, err := pinEntry(dir, name)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return 0, err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return unix.Open(procPath(f), flags&^unix.O_NOFOLLOW, 0)
	case unix.S_IFLNK:
		return 0, unix.ESTALE // the kernel looks the name up, and follows the link itself
	case unix.S_IFDIR:
		return 0, unix.EISDIR
	}
	return 0, unix.ENXIO
}

func (d *Dir) remove(n *node, name string, flags int) error {
	return d.inDir(n, name, &d.renaming, func(dir int) error {
		if err := unix.Unlinkat(dir, name, flags); err != nil {
			return err
		}
		d.nodes.remove(n, name)
		return nil
	})
}

func (d *Dir) rename(n *node, to uint64, flags uint32, in *body) error {
	name, newName := in.text(), in.text()
	if badName(newName) || flags&^(unix.RENAME_NOREPLACE|unix.RENAME_EXCHANGE) != 0 {
		return unix.EINVAL
	}
	m := d.nodes.get(to)
	return d.inDir(n, name, &d.renaming, func(from int) error {
		dir, _, err := d.pin(m)
		if err != nil {
			return err
		}
		defer dir.Close()
		if err := unix.Renameat2(from, name, int(dir.Fd()), newName, uint(flags)); err != nil {
			return err
		}
		d.nodes.move(n, name, m, newName, flags&unix.RENAME_EXCHANGE != 0)
		return nil
	})
}

func (d *Dir) setattr(n *node, in *body, r *reply) error {
	valid := in.u32()
	in.u32()
	id := in.u64()
	size := int64(in.u64())
	in.u64() // the lock's owner
	atime, mtime := int64(in.u64()), int64(in.u64())
	in.u64() // ctime
	atimeNano, mtimeNano := int64(in.u32()), int64(in.u32())
	in.u32()
	mode := in.u32()
	in.u32()
	uid, gid := in.u32(), in.u32()

	var h *handle
	if valid&setHandle != 0 {
		h = d.handle(id)
	}
	f, st, err := d.reach(n, h)
	if err != nil {
		return err
	}
	defer f.Close()
	path := procPath(f)
	if valid&setSize != 0 {
		if h != nil && h.writable {
			err = h.file.Truncate(size) // whatever the mode is now
		} else {
			err = unix.Truncate(path, size)
		}
		if err != nil {
			return err
		}
	}
	if valid&(setUID|setGID) != 0 {
		u, g := -1, -1
		if valid&setUID != 0 {
			u = int(toHost(uid, d.own.uid))
		}
		if valid&setGID != 0 {
			g = int(toHost(gid, d.own.gid))
		}
		if err := unix.Fchownat(int(f.Fd()), "", u, g, unix.AT_EMPTY_PATH); err != nil {
			return err
		}
	}
	if valid&setMode != 0 {
		if err := unix.Chmod(path, mode&permissions); err != nil {
			return err
		}
	}
	if valid&(setAtime|setMtime) != 0 {
		times := []unix.Timespec{
			when(valid, setAtime, setAtimeNow, atime, atimeNano),
			when(valid, setMtime, setMtimeNow, mtime, mtimeNano),
		}
		if st.Mode&unix.S_IFMT == unix.S_IFLNK {
			err = unix.UtimesNanoAt(int(f.Fd()), "", times, unix.AT_EMPTY_PATH)
		} else {
			err = unix.UtimesNanoAt(unix.AT_FDCWD, path, times, 0)
		}
		if err != nil {
			return err
		}
	}
	if err := unix.Fstat(int(f.Fd()), st); err != nil {
		return err
	}
	d.nodes.tell(n, st)
	r.attrOut(st, &d.own)
	return nil
}

// when returns a time of SETATTR.
func when(valid, set, now uint32, sec, nano int64) unix.Timespec {
	switch {
	case valid&set == 0:
		return unix.Timespec{Nsec: unix.UTIME_OMIT}
	case valid&now != 0:
		return unix.Timespec{Nsec: unix.UTIME_NOW}
	}
	return unix.NsecToTimespec(sec*1e9 + nano)
}
