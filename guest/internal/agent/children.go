package agent

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"guesthouse.example/guest/internal/share"
)

// Children are init's child processes: the guest's program, the harness's commands, and their orphans.
// One goroutine waits for all of them.
type Children struct {
	mu      sync.Mutex // held while a child starts, so that reap knows the child when it ends
	started *sync.Cond
	ended   map[int]chan<- unix.WaitStatus
}

// NewChildren starts the goroutine that waits.
func NewChildren() *Children {
	c := &Children{ended: make(map[int]chan<- unix.WaitStatus)}
	c.started = sync.NewCond(&c.mu)
	go c.reap()
	return c
}

// Start starts a child. The channel gets the child's wait status when it ends.
func (c *Children) Start(start func() (pid int, err error)) (pid int, ended <-chan unix.WaitStatus, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	pid, err = share.Fork(start)
	if err != nil {
		return 0, nil, err
	}
	status := make(chan unix.WaitStatus, 1)
	c.ended[pid] = status
	c.started.Signal()
	return pid, status, nil
}

func (c *Children) reap() {
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, 0, nil)
		c.mu.Lock()
		switch {
		case err == nil:
			if ended := c.ended[pid]; ended != nil {
				ended <- status
				delete(c.ended, pid)
			}
		case errors.Is(err, unix.ECHILD) && len(c.ended) == 0:
			c.started.Wait()
		}
		c.mu.Unlock()
	}
}

// groupRoot is where init mounts the control groups.
const groupRoot = "/sys/fs/cgroup"

// A group is a control group. A kill or a freeze of the group reaches all descendants of its
// processes. In a kernel without control groups, the group is nil.
type group struct {
	dir string
	fd  *os.File // the directory
}

// newGroup makes a group below its parent, or below the root if parent is nil.
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

// hold makes a process start in the group.
func (g *group) hold(attr *unix.SysProcAttr) {
	if g != nil {
		attr.UseCgroupFD, attr.CgroupFD = true, int(g.fd.Fd())
	}
}

// kill kills all processes of the group. In a kernel that cannot do that, it kills a process group.
func (g *group) kill(processGroup int) {
	if g == nil || os.WriteFile(g.dir+"/cgroup.kill", []byte("1"), 0) != nil { // since Linux 5.14
		unix.Kill(-processGroup, unix.SIGKILL)
	}
}

// empty reports whether no process is left in the group.
func (g *group) empty() bool {
	text, err := os.ReadFile(g.dir + "/cgroup.events")
	return err == nil && strings.Contains(string(text), "populated 0")
}

// remove removes the group, unless processes are left in it.
func (g *group) remove() {
	if g != nil {
		g.fd.Close()
		os.Remove(g.dir)
	}
}
