package socketservice

import (
	"encoding/binary"
	"errors"
	"os"
	"sync/atomic"

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

	close()
}

// errGone says that the poller's own descriptor is no longer open. Programs that
// close all descriptors that they do not know do this.
var errGone = errors.New("poller's descriptor was closed")

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
	gone atomic.Bool
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
	if err := p.control(unix.EPOLL_CTL_ADD, bell, &ev); err != nil {
		p.close()
		return nil, os.NewSyscallError("epoll_ctl", err)
	}
	return p, nil
}

func (p *epoll) control(op int, fd int, ev *unix.EpollEvent) error {
	err := unix.EpollCtl(p.fd, op, fd, ev)
	if err == unix.EBADF && isOpen(fd) {
		p.gone.Store(true)
		return errGone
	}
	return err
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
	if err == unix.EBADF {
		p.gone.Store(true)
		return 0, errGone
	}
	if err != nil {
		return 0, err
	}
	for i := range n {
		if events[i].Fd == bellTag {
			var count [8]byte
			_, _ = unix.Read(p.bell, count[:])
			copy(events[i:n], events[i+1:n])
			return n - 1, nil
		}
	}
	return n, nil
}

func (p *epoll) wake() {
	var one [8]byte
	binary.NativeEndian.PutUint64(one[:], 1)
	// It fails only when the counter is full, and then the bell rings anyway.
	_, _ = unix.Write(p.bell, one[:])
}

func (p *epoll) close() {
	if !p.gone.Load() { // else the number may be somebody else's by now
		_ = unix.Close(p.fd)
	}
	_ = unix.Close(p.bell)
}
