package agent

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"guesthouse.example/guest/internal/rawcall"
)

// A freezer stops all processes except init, from before the save until the guest is reseeded.
// Otherwise all restored machines could draw the same random numbers.
type freezer struct {
	fd     int    // cgroup.freeze of the control group; -1 in a kernel without control groups
	events string // the path of its cgroup.events
}

// newFreezer returns the freezer of a group.
func newFreezer(g *group) (freezer, error) {
	if g == nil {
		return freezer{fd: -1}, errors.New("this kernel has no control groups")
	}
	file := g.dir + "/cgroup.freeze" // since Linux 5.2
	fd, err := unix.Open(file, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return freezer{fd: -1}, &os.PathError{Op: "open", Path: file, Err: err}
	}
	return freezer{fd, g.dir + "/cgroup.events"}, nil
}

const (
	freezeWithin = time.Second // a process may be in a system call that cannot be interrupted
	freezeTick   = time.Millisecond
)

// freeze stops all processes. It returns an error if some still run after freezeWithin.
func (f freezer) freeze() error {
	if f.fd < 0 {
		return os.NewSyscallError("kill", unix.Kill(-1, unix.SIGSTOP)) // -1 means all processes except init
	}
	if _, err := unix.Pwrite(f.fd, []byte("1"), 0); err != nil {
		return os.NewSyscallError("pwrite", err)
	}
	for late := time.Now().Add(freezeWithin); ; time.Sleep(freezeTick) {
		text, err := os.ReadFile(f.events)
		if err != nil {
			return err
		}
		if strings.Contains(string(text), "frozen 1") {
			return nil
		}
		if time.Now().After(late) {
			return fmt.Errorf("some still run after %v", freezeWithin)
		}
	}
}

// thaw lets all processes continue. Without a freeze it does nothing.
func (f freezer) thaw() error {
	if f.fd < 0 {
		if err := unix.Kill(-1, unix.SIGCONT); err != unix.ESRCH { // there may be no process
			return os.NewSyscallError("kill", err)
		}
		return nil
	}
	if _, errno := rawcall.Slice(unix.SYS_WRITE, f.fd, []byte("0"), 0); errno != 0 {
		return os.NewSyscallError("write", errno)
	}
	return nil
}
