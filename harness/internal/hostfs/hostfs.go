// Package hostfs shows a directory of the host to a guest. It answers the requests of the guest's
// FUSE file system, as virtiofs does, but over any line that carries bytes: the guest's init only
// copies messages between /dev/fuse and the line.
//
// The guest is not trusted. It names files by numbers of the kernel's, which stand for names below
// the directory. For each request, the package opens the file's path through an os.Root with O_PATH,
// checks that it is the file that the number stands for, and goes on with that descriptor, in which
// at most one more name is looked up. It never follows a symbolic link for the guest: the guest's
// kernel does, in the guest's own tree. So no request leaves the directory, whatever anybody renames
// or replaces meanwhile. Devices, pipes and sockets can be seen but not opened.
//
// The guest's root is the user of this process: it sees this user's files as its own, and can do what
// this user may do. Other users keep their numbers.
package hostfs

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// validSeconds is how long the guest's kernel may use names and attributes without asking again. An
// open file is always checked when it is opened.
const validSeconds = 1

// A Dir is a directory of the host. All methods may be called from any goroutine.
type Dir struct {
	root     *os.Root
	writable bool
	own      owner
	nodes    *nodes

	renaming sync.RWMutex // held for writing while the host and the nodes rename, so that they agree

	mu      sync.Mutex // guards all fields below
	last    uint64
	handles map[uint64]*handle
	listed  int // bytes of names that all handles keep
}

// Open opens a directory. Without writable, the guest can change nothing in it.
func Open(name string, writable bool) (*Dir, error) {
	root, err := os.OpenRoot(name)
	if err != nil {
		return nil, err
	}
	d := &Dir{root: root, writable: writable, own: owner{uint32(os.Geteuid()), uint32(os.Getegid())},
		handles: make(map[uint64]*handle)}
	st, err := root.Stat(".")
	if err != nil {
		root.Close()
		return nil, err
	}
	sys := st.Sys().(*syscall.Stat_t)
	d.nodes = newNodes(fileID{uint64(sys.Dev), sys.Ino, sys.Mode & unix.S_IFMT})
	return d, nil
}

// Close closes the directory and all files that the guest has open in it.
func (d *Dir) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for id, h := range d.handles {
		h.file.Close()
		delete(d.handles, id)
	}
	return d.root.Close()
}

// pin opens a node's file with O_PATH. The file is the one that the node stands for: whoever renames it
// from now on changes nothing for the caller. The caller must close it.
func (d *Dir) pin(n *node) (*os.File, *unix.Stat_t, error) {
	if n == nil {
		return nil, nil, unix.ESTALE
	}
	for {
		path, ok := d.nodes.path(n)
		if !ok {
			return nil, nil, unix.ESTALE
		}
		f, st, err := d.pinPath(path, n.file)
		if err != unix.ESTALE || !d.nodes.misplaced(n) {
			return f, st, err
		}
	}
}

// pinPath pins a file if it has a path. Otherwise it returns ESTALE, and the guest's kernel looks the names
// up again.
func (d *Dir) pinPath(path string, file fileID) (*os.File, *unix.Stat_t, error) {
	f, err := d.root.OpenFile(path, unix.O_PATH, 0)
	if err != nil {
		switch errnoOf(err) {
		case unix.ENOENT, unix.ENOTDIR, unix.ELOOP, unix.EIO:
			return nil, nil, unix.ESTALE
		}
		return nil, nil, err
	}
	st := new(unix.Stat_t)
	err = unix.Fstat(int(f.Fd()), st)
	if err == nil && identify(st) != file {
		err = unix.ESTALE
	}
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, st, nil
}

// procPath returns a path that leads to a pinned file itself, under whatever name it is now.
func procPath(f *os.File) string { return fmt.Sprintf("/proc/self/fd/%d", f.Fd()) }

// errnoOf returns the error number that the guest gets.
func errnoOf(err error) unix.Errno {
	var errno unix.Errno
	switch {
	case err == nil:
		return 0
	case errors.As(err, &errno):
		return errno
	case errors.Is(err, os.ErrClosed):
		return unix.EBADF
	}
	return unix.EIO // os.Root says in words that a path leads outside
}
