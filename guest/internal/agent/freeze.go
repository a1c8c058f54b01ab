package agent

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A freezer stops all programs but init, from before the machine is saved until it has a clock,
// entropy and an identity of its own: what a program drew before would be drawn by each machine
// that is restored.
type freezer struct {
	fd     int    // of the control group's cgroup.freeze; -1 in a kernel without control groups
	events string // its cgroup.events
}

// newFreezer returns that of a group.
func newFreezer(g *group) (freezer, error) {
	if g == nil {
		return freezer{fd: -1}, errors.New("this kernel has no control groups")
	}
	file := g.dir + "/cgroup.freeze" // Linux 5.2 has it
	fd, err := unix.Open(file, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return freezer{fd: -1}, &os.PathError{Op: "open", Path: file, Err: err}
	}
	return freezer{fd, g.dir + "/cgroup.events"}, nil
}

const (
	freezeWithin = time.Second // a program may be in the middle of a system call that cannot be left
	freezeLook   = time.Millisecond
)

// freeze returns when all programs stand still. It says so where they do not.
func (f freezer) freeze() error {
	if f.fd < 0 {
		return os.NewSyscallError("kill", unix.Kill(-1, unix.SIGSTOP)) // all that there are, but init
	}
	if _, err := unix.Pwrite(f.fd, []byte("1"), 0); err != nil {
		return os.NewSyscallError("pwrite", err)
	}
	for late := time.Now().Add(freezeWithin); ; time.Sleep(freezeLook) {
		text, err := os.ReadFile(f.events)
		if err != nil {
			return err
		}
		if strings.Contains(string(text), "frozen 1") {
			return nil
		}
		if time.Now().After(late) {
			return fmt.Errorf("not all of them stand still after %v", freezeWithin)
		}
	}
}

// thaw lets all programs go on. Those that were not frozen do anyway.
func (f freezer) thaw() error {
	if f.fd < 0 {
		if err := unix.Kill(-1, unix.SIGCONT); err != unix.ESRCH { // there may be none
			return os.NewSyscallError("kill", err)
		}
		return nil
	}
	_, err := unix.Pwrite(f.fd, []byte("0"), 0)
	return os.NewSyscallError("pwrite", err)
}
