package agent

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// Children are init's: the guest's program, the harness's commands, and what they have left
// orphaned. One goroutine waits for all of them.
type Children struct {
	mu    sync.Mutex // held while one is started, so that none ends before it is known
	some  *sync.Cond // one was started
	ended map[int]chan<- unix.WaitStatus
}

// NewChildren begins to wait for them.
func NewChildren() *Children {
	c := &Children{ended: make(map[int]chan<- unix.WaitStatus)}
	c.some = sync.NewCond(&c.mu)
	go c.reap()
	return c
}

// Start starts a child and returns what tells how it ended.
func (c *Children) Start(start func() (pid int, err error)) (pid int, ended <-chan unix.WaitStatus, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if pid, err = start(); err != nil {
		return 0, nil, err
	}
	tells := make(chan unix.WaitStatus, 1)
	c.ended[pid] = tells
	c.some.Signal()
	return pid, tells, nil
}

func (c *Children) reap() {
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, 0, nil)
		c.mu.Lock()
		switch {
		case err == nil:
			if tells := c.ended[pid]; tells != nil {
				tells <- status
				delete(c.ended, pid)
			}
		case errors.Is(err, unix.ECHILD) && len(c.ended) == 0:
			c.some.Wait()
		}
		c.mu.Unlock()
	}
}

// groupRoot is where the kernel's control groups are.
const groupRoot = "/sys/fs/cgroup"

// A group is a control group: it ends and is frozen with all that its processes start. The nil
// group is that of a kernel without them.
type group struct {
	dir string
	fd  *os.File // of the directory
}

// newGroup makes one below another, nil for the root.
func newGroup(name string, parent *group) (*group, error) {
	dir := groupRoot
	if parent != nil {
		dir = parent.dir
	}
	dir += "/" + name
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("control group: %w", err)
	}
	fd, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("control group: %w", err)
	}
	return &group{dir, fd}, nil
}

// hold has a process start in the group.
func (g *group) hold(attr *unix.SysProcAttr) {
	if g != nil {
		attr.UseCgroupFD, attr.CgroupFD = true, int(g.fd.Fd())
	}
}

// kill ends all processes of the group, and where that cannot be done all of a process group.
func (g *group) kill(processGroup int) {
	if g == nil || os.WriteFile(g.dir+"/cgroup.kill", []byte("1"), 0) != nil { // Linux 5.14 has it
		unix.Kill(-processGroup, unix.SIGKILL)
	}
}

// leave removes the group, if nobody has stayed in it.
func (g *group) leave() {
	if g != nil {
		g.fd.Close()
		os.Remove(g.dir)
	}
}
