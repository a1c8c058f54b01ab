package socketservice

import (
	"encoding/binary"
	"errors"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// A poller is epoll, or a fake of it in tests. Control and wait correspond to
// epoll_ctl and epoll_wait; wake and close end a wait. Only the loop's goroutine calls
// wait. All other methods are called with the loop's lock held.
type poller interface {
	// control adds, modifies or removes (unix.EPOLL_CTL_*) the interest in a
	// descriptor. The change takes effect at once, even for a running wait. The
	// error is a bare errno or errGone.
	control(op int, fd int, ev *unix.EpollEvent) error

	// wait blocks until there are events or wake is called. It returns how many
	// events it has stored: none, without an error, after a mere wake or a signal.
	wait(events []unix.EpollEvent) (int, error)

	// wake makes one wait return, the running one or the next.
	wake()

	// intact reports whether the poller's own descriptors are still its own. If
	// they are not, close closes nothing, and one wake may not be enough.
	intact() bool

	close()
}

// errGone says that the program has closed one of the poller's own descriptors or has
// replaced it by another file. That happens if a program closes all descriptors that it
// does not know, or uses dup2 with a number of its choice.
var errGone = errors.New("the program has closed or replaced a descriptor of the poller")

// interest returns the event structure that asks for mask on a descriptor. The structure
// also holds the generation of the interest, and epoll returns it with each event. The
// descriptor alone would not do, because it may belong to another socket by then.
func interest(fd int32, gen, mask uint32) unix.EpollEvent {
	return unix.EpollEvent{Events: mask, Fd: fd, Pad: int32(gen)}
}

// epoll is the poller of Linux.
type epoll struct {
	fd   int
	bell int // an eventfd that wake rings
}

// bellTag marks the eventfd's events. No descriptor is negative.
const bellTag = -1

func newEpoll() (poller, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	bell, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		_ = unix.Close(fd)
		return nil, os.NewSyscallError("eventfd", err)
	}
	p := &epoll{fd: fd, bell: bell}
	ev := interest(bellTag, 0, unix.EPOLLIN)
	if err := unix.EpollCtl(fd, unix.EPOLL_CTL_ADD, bell, &ev); err != nil {
		_ = unix.Close(fd)
		_ = unix.Close(bell)
		return nil, os.NewSyscallError("epoll_ctl", err)
	}
	return p, nil
}

func (p *epoll) control(op int, fd int, ev *unix.EpollEvent) error {
	if fd == p.fd || fd == p.bell {
		if p.intact() {
			return unix.EPERM // no service may have them
		}
		return errGone
	}
	err := unix.EpollCtl(p.fd, op, fd, ev)
	if err != nil && err != unix.EEXIST && !p.intact() {
		return errGone
	}
	return err
}

// intact asks epoll whether it polls the bell, which only this poller does. The files
// themselves do not tell, because all files of their kind share one inode.
func (p *epoll) intact() bool {
	ev := interest(bellTag, 0, unix.EPOLLIN)
	return unix.EpollCtl(p.fd, unix.EPOLL_CTL_MOD, p.bell, &ev) == nil
}

func isOpen(fd int) bool {
	_, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	return err == nil
}

func (p *epoll) wait(events []unix.EpollEvent) (int, error) {
	n, err := unix.EpollWait(p.fd, events, -1)
	if err == unix.EINTR {
		// Go's own preemption signal is among the causes.
		return 0, nil
	}
	if err != nil {
		if !p.intact() {
			return 0, errGone
		}
		return 0, err
	}
	for i := range n {
		if events[i].Fd == bellTag {
			if !p.intact() {
				return 0, errGone // the file under the bell's number must not be read
			}
			var count [8]byte
			_, _ = unix.Read(p.bell, count[:])
			copy(events[i:n], events[i+1:n])
			return n - 1, nil
		}
	}
	return n, nil
}

func (p *epoll) wake() {
	if !p.intact() {
		interrupt()
		return
	}
	var one [8]byte
	binary.NativeEndian.PutUint64(one[:], 1)
	// It fails only when the counter is full, and then the bell rings anyway.
	_, _ = unix.Write(p.bell, one[:])
}

// interrupt ends the system calls of all threads with EINTR, by the signal with which Go
// preempts goroutines. Nothing else ends a wait whose bell is gone. It needs /proc.
func interrupt() {
	threads, _ := os.ReadDir("/proc/self/task")
	for _, thread := range threads {
		if tid, err := strconv.Atoi(thread.Name()); err == nil {
			_ = unix.Tgkill(unix.Getpid(), tid, unix.SIGURG)
		}
	}
}

// close closes nothing if one of the two descriptors is no longer the poller's. It cannot
// tell which one, and must not close a file of the program.
func (p *epoll) close() {
	if p.intact() {
		_ = unix.Close(p.fd)
		_ = unix.Close(p.bell)
	}
}
