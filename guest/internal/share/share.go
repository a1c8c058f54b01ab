// Package share mounts directories of the host in the guest. The guest's kernel speaks FUSE, and the
// harness answers. This package only carries the messages, so that the emulated processor does little
// for each of them. It knows of a message no more than its length, and how long the answer can be.
//
// Before a machine is saved, Prepare mounts file systems that no harness answers yet, because in a
// restored machine all code is slow at first. Mount then only moves them to their places.
package share

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"

	"guesthouse.example/internal/wire"
)

// private is where the parts of overlays are, and the mounts that wait for their places, in init's tmpfs.
const private = "/run/guesthouse/share"

// A mounted is a file system of this package.
type mounted struct {
	*connection
	point string
}

var (
	mu       sync.Mutex                        // held by Prepare and Mount
	prepared = map[wire.ShareMode][]*mounted{} // what Mount moves
	overlays int                               // how many were mounted, which names their directories
)

// Prepare mounts a file system of each mode for a later share. The kernel must have the file systems fuse and
// overlay.
func Prepare() error {
	mu.Lock()
	defer mu.Unlock()
	for _, mode := range []wire.ShareMode{wire.ShareReadOnly, wire.ShareOverlay, wire.ShareWrite} {
		if len(prepared[mode]) > 0 {
			continue
		}
		m, err := mountEmpty(filepath.Join(private, "prepared-"+strconv.Itoa(int(mode))), mode)
		if err != nil {
			return fmt.Errorf("prepare a mount: %w", err)
		}
		prepared[mode] = append(prepared[mode], m)
	}
	return nil
}

// Mount mounts a directory of the host at a path of the guest, whose missing directories it makes. The kernel
// must have the file system fuse, and for an overlay also overlay.
func Mount(line Line, s wire.Share) error {
	mu.Lock()
	defer mu.Unlock()
	waiting := prepared[s.Mode]
	if len(waiting) == 0 {
		m, err := mountEmpty(s.Point, s.Mode)
		if err == nil {
			m.use(line)
		}
		return err
	}
	m := waiting[0]
	prepared[s.Mode] = waiting[1:]
	m.use(line)
	err := unix.Mount(m.point, s.Point, "", unix.MS_MOVE, "")
	if err == unix.ENOENT {
		if err := os.MkdirAll(s.Point, 0o755); err != nil {
			return err
		}
		err = unix.Mount(m.point, s.Point, "", unix.MS_MOVE, "")
	}
	if err != nil {
		return fmt.Errorf("move a mount to %s: %w", s.Point, err)
	}
	return nil
}

// mountEmpty mounts a file system that is an empty directory until its connection is used.
func mountEmpty(point string, mode wire.ShareMode) (*mounted, error) {
	if err := os.MkdirAll(point, 0o755); err != nil {
		return nil, err
	}
	if mode != wire.ShareOverlay {
		c, err := mountFUSE(point, mode == wire.ShareReadOnly)
		return &mounted{c, point}, err
	}
	overlays++
	dir := filepath.Join(private, strconv.Itoa(overlays))
	for _, part := range []string{"lower", "upper", "work"} {
		if err := os.MkdirAll(filepath.Join(dir, part), 0o755); err != nil {
			return nil, err
		}
	}
	c, err := mountFUSE(dir+"/lower", true)
	if err != nil {
		return nil, err
	}
	err = mount("overlay", point, "overlay", 0, fmt.Sprintf("lowerdir=%s/lower,upperdir=%[1]s/upper,workdir=%[1]s/work", dir))
	if err != nil {
		unix.Unmount(dir+"/lower", unix.MNT_DETACH)
	}
	return &mounted{c, point}, err
}

func mount(source, point, kind string, flags uintptr, options string) error {
	if err := unix.Mount(source, point, kind, flags, options); err != nil {
		return fmt.Errorf("mount a file system of type %s at %s: %w", kind, point, err)
	}
	return nil
}

// mountFUSE mounts a directory that is empty until its connection is used.
func mountFUSE(point string, readOnly bool) (*connection, error) {
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: "/dev/fuse", Err: err}
	}
	flags := uintptr(unix.MS_NOSUID | unix.MS_NODEV)
	if readOnly {
		flags |= unix.MS_RDONLY
	}
	// The guest's kernel checks permissions, for all users of the guest.
	options := fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions,max_read=%d", fd, maxData)
	if err := mount("host", point, "fuse.guesthouse", flags, options); err != nil {
		unix.Close(fd)
		return nil, err
	}
	c := serve(fd)
	// Now the kernel learns that there are no extended attributes, and does not ask the harness for them.
	unix.Getxattr(point, "user.none", nil)
	// Larger reads cost less than more reads. The kernel begins with 128 KiB.
	var dir unix.Stat_t
	if unix.Stat(point, &dir) == nil {
		bdi := fmt.Sprintf("/sys/class/bdi/%d:%d/read_ahead_kb", unix.Major(uint64(dir.Dev)), unix.Minor(uint64(dir.Dev)))
		os.WriteFile(bdi, []byte("1024"), 0) // slower without
	}
	return c, nil
}
