// Package share mounts directories of the host in the guest. The guest's kernel speaks FUSE, and the
// harness answers. This package only carries the messages, so that the emulated processor does little
// for each of them. It knows of a message no more than its length, and how long the answer can be.
package share

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"guesthouse.example/internal/wire"
)

// A Line carries one request of the kernel to the harness and calls use with the answer, which is valid
// until use returns. Expect is the greatest length in bytes that the answer can have, as far as it is
// known. Several goroutines call it at once.
type Line func(request []byte, expect int, use func(answer []byte) error) error

// private is where the parts of overlays are, in init's tmpfs.
const private = "/run/guesthouse/share"

// Mount mounts a directory of the host at a path of the guest, whose missing directories it makes. The kernel
// must have the file system fuse, and for an overlay also overlay.
func Mount(line Line, s wire.Share) error {
	if err := os.MkdirAll(s.Point, 0o755); err != nil {
		return err
	}
	if s.Mode != wire.ShareOverlay {
		return mountFUSE(line, s.Point, s.Mode == wire.ShareReadOnly)
	}
	dir := filepath.Join(private, strconv.FormatUint(uint64(s.Channel), 10))
	for _, part := range []string{"lower", "upper", "work"} {
		if err := os.MkdirAll(filepath.Join(dir, part), 0o755); err != nil {
			return err
		}
	}
	if err := mountFUSE(line, dir+"/lower", true); err != nil {
		return err
	}
	return mount("overlay", s.Point, "overlay", 0, fmt.Sprintf("lowerdir=%s/lower,upperdir=%[1]s/upper,workdir=%[1]s/work", dir))
}

func mount(source, point, kind string, flags uintptr, options string) error {
	if err := unix.Mount(source, point, kind, flags, options); err != nil {
		return fmt.Errorf("mount a file system of type %s at %s: %w", kind, point, err)
	}
	return nil
}

const (
	// maxData is the largest read and write that the harness agrees to, in bytes.
	maxData = 1 << 20

	// workers is how many requests of a share are under way at once. Two overlap the kernel's reading
	// ahead with the work of the program; each is a thread.
	workers = 3
)

// mountFUSE mounts a directory and begins to serve the kernel's requests. It returns when the harness
// has answered one.
func mountFUSE(line Line, point string, readOnly bool) error {
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: "/dev/fuse", Err: err}
	}
	flags := uintptr(unix.MS_NOSUID | unix.MS_NODEV)
	if readOnly {
		flags |= unix.MS_RDONLY
	}
	// The guest's kernel checks permissions, for all users of the guest.
	options := fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions,max_read=%d", fd, maxData)
	if err := mount("host", point, "fuse.guesthouse", flags, options); err != nil {
		unix.Close(fd)
		return err
	}
	if !serving.Swap(true) && runtime.GOMAXPROCS(0) < 2 {
		runtime.GOMAXPROCS(2)
	}
	for range workers {
		go serve(fd, line)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(point, &st); err != nil {
		unix.Unmount(point, unix.MNT_DETACH)
		return fmt.Errorf("%s: the harness does not answer: %w", point, err)
	}
	// Larger reads cost less than more reads. The kernel begins with 128 KiB.
	var dir unix.Stat_t
	if unix.Stat(point, &dir) == nil {
		bdi := fmt.Sprintf("/sys/class/bdi/%d:%d/read_ahead_kb", unix.Major(uint64(dir.Dev)), unix.Minor(uint64(dir.Dev)))
		os.WriteFile(bdi, []byte("1024"), 0) // slower without
	}
	return nil
}

// serving says that this process serves a file system.
var serving atomic.Bool

// HoldWorld must be called before this process starts another one, by one goroutine at a time, which calls
// release when the other one runs.
//
// A process that starts, from a program or in a directory of a share, needs answers that this process carries.
// During a fork, the thread keeps its P, the processor of Go's scheduler, until the new process has its
// program, and does not stop for the garbage collector. A machine with one CPU has only one P. So there is a
// second P for the goroutines that carry the answers, and no garbage collection, which would stop them and wait
// for the first P. Without runtime.GC, a collection that another goroutine has just decided on could begin
// during the fork.
func HoldWorld() (release func()) {
	if !serving.Load() {
		return func() {}
	}
	percent := debug.SetGCPercent(-1)
	runtime.GC()
	return func() { debug.SetGCPercent(percent) }
}

// serve carries requests until the file system is unmounted. A request that cannot be carried fails with
// EIO, so that no program waits forever.
func serve(fd int, line Line) {
	// Outside Go's heap, in which it would make the garbage collector work. Its pages exist when they are used.
	buf, err := unix.Mmap(-1, 0, maxData+4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return
	}
	defer unix.Munmap(buf)
	for {
		n, err := unix.Read(fd, buf)
		switch {
		case err == unix.EINTR || err == unix.EAGAIN || err == unix.ENOENT: // ENOENT: the request was interrupted
			continue
		case err != nil || n < headerSize:
			return
		}
		request := buf[:n]
		if line(request, expect(request), func(answer []byte) error { return reply(fd, answer) }) != nil {
			failed := make([]byte, replySize)
			binary.LittleEndian.PutUint32(failed, replySize)
			errno := -int32(unix.EIO)
			binary.LittleEndian.PutUint32(failed[4:], uint32(errno))
			copy(failed[8:], request[8:16])
			unix.Write(fd, failed) // the kernel refuses it if the request needs no answer
		}
	}
}

// The sizes in bytes of the headers, and the requests whose answers are long, by include/uapi/linux/fuse.h.
const (
	headerSize = 40
	replySize  = 16

	opRead        = 15
	opReaddirplus = 44
)

// expect returns the length of an answer.
func expect(request []byte) int {
	switch op := binary.LittleEndian.Uint32(request[4:]); {
	case (op == opRead || op == opReaddirplus) && len(request) >= headerSize+20:
		return replySize + int(min(binary.LittleEndian.Uint32(request[headerSize+16:]), maxData))
	}
	return 256
}

var errAnswer = errors.New("malformed answer")

// reply hands the kernel an answer, which may be several messages. A message that the kernel refuses, because
// its request was interrupted, for example, is nobody's business.
func reply(fd int, answer []byte) error {
	for len(answer) > 0 {
		if len(answer) < replySize {
			return errAnswer
		}
		n := binary.LittleEndian.Uint32(answer)
		if n < replySize || uint64(n) > uint64(len(answer)) {
			return errAnswer
		}
		unix.Write(fd, answer[:n])
		answer = answer[n:]
	}
	return nil
}
