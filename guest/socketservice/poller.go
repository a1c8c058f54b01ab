package socketservice

import (
	"encoding/binary"
	"errors"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// A poller is epoll, or in tests a fake of it: control and wait are epoll_ctl
// and epoll_wait, wake and close end the waiting. All but wait are called with
// the loop's lock held, wait by the loop's goroutine alone.
type poller interface {
	// control adds, modifies or removes (unix.EPOLL_CTL_*) the interest in
	// a descriptor. The error is a bare errno, or errGone. It takes effect at
	// once, also for a wait that runs.
	control(op int, fd int, ev *unix.EpollEvent) error

	// wait blocks until there are events or wake is called and returns how
	// many events it has stored; none, without an error, after wake alone or
	// a signal.
	wait(events []unix.EpollEvent) (int, error)

	// wake makes one wait, the one that runs or the next, return.
	wake()

	// intact reports whether the poller's own descriptors are what they were.
	// Without them close closes nothing, and wake may have to be repeated.
	intact() bool

	close()
}

// errGone says that one of the poller's own descriptors was closed by the program,
// or is now another file. Programs that close all descriptors that they do not know
// do this, and those that use dup2 with a number of their choice.
var errGone = errors.New("the program has closed or replaced a descriptor of the poller")

// interest returns the event structure that asks for mask on a descriptor. What
// comes back with an event is the descriptor and the generation of the
// interest: the number alone can have gone to another socket meanwhile.
func interest(fd int32, gen, mask uint32) unix.EpollEvent {
	return unix.EpollEvent{Events: mask, Fd: fd, Pad: int32(gen)}
}

// epoll is the poller of Linux.
type epoll struct {
	fd   int
	bell int // an eventfd that wake rings
}

// bellTag marks the eventfd's events: no descriptor is negative.
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
			return unix.EPERM // they are no sockets of a service
		}
		return errGone
	}
	err := unix.EpollCtl(p.fd, op, fd, ev)
	if err != nil && err != unix.EEXIST && !p.intact() {
		return errGone
	}
	return err
}

// intact asks for what only this poller can answer: whether it polls its bell.
// The files themselves do not tell, as all of their kind share one inode.
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
				return 0, errGone // what is under the bell's number is not to be read
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

// interrupt ends the system calls of all threads with EINTR, by the signal that Go
// itself uses for that: a wait whose bell is gone ends in no other way. It needs /proc.
func interrupt() {
	threads, _ := os.ReadDir("/proc/self/task")
	for _, thread := range threads {
		if tid, err := strconv.Atoi(thread.Name()); err == nil {
			_ = unix.Tgkill(unix.Getpid(), tid, unix.SIGURG)
		}
	}
}

// close closes nothing when one of the two descriptors is not ours any more, for
// which of them that is can not be told: better one is left open than that a file
// of the program is closed.
func (p *epoll) close() {
	if p.intact() {
		_ = unix.Close(p.fd)
		_ = unix.Close(p.bell)
	}
}
