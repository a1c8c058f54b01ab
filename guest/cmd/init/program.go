package main

import (
	"errors"
	"fmt"
	"io/fs"
	"log"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/u-root/u-root/pkg/cmdline"
	"golang.org/x/sys/unix"

	"guesthouse.example/guest/internal/agent"
	"guesthouse.example/guest/internal/network"
	"guesthouse.example/internal/initramfs"
	"guesthouse.example/internal/wire"
)

// A program is the guest's program, which init starts once. It is an agent.Machine.
type program struct {
	harness  *agent.Agent
	children *agent.Children
	over     chan end // gets the reason why init powers the machine off

	shareable atomic.Bool // the kernel's modules for directories of the host are loaded

	configured chan struct{} // closed when the harness has configured the network
	network    error         // why that failed; set before configured is closed
	once       sync.Once     // closes configured

	mu    sync.Mutex // held while the program starts
	state state
	pid   int // of the running program
}

// A state says what can be done with the program.
type state int

const (
	booting state = iota // the drivers or the network are not ready
	waiting              // the program can be started
	running              // or it has ended
	ending               // the machine powers off
)

// An end says why the machine powers off.
type end struct {
	ran  bool      // the program ran, or it is built in and could not be started
	exit wire.Exit // how it ended
	why  string    // why the machine powers off without a program
}

func newProgram(harness *agent.Agent, children *agent.Children) *program {
	return &program{harness: harness, children: children, over: make(chan end, 2), configured: make(chan struct{})}
}

// Configure configures the network as the harness wants.
func (p *program) Configure(n wire.Network) error {
	err := network.Apply(n)
	p.once.Do(func() {
		p.network = err
		close(p.configured)
	})
	return err
}

// awaitNetwork waits until the harness has configured the network.
func (p *program) awaitNetwork() error {
	if !p.harness.Connected() {
		return fmt.Errorf("the harness is to configure it, and the machine has no port %s over which it could", wire.PortName)
	}
	<-p.configured
	return p.network
}

// begin starts the program that is built into the initramfs. In a platform, which has none, it reports
// that the harness can deliver a program.
func (p *program) begin() {
	p.mu.Lock()
	if p.state == booting {
		p.state = waiting
	}
	p.mu.Unlock()
	_, err := os.Stat(initramfs.Program)
	switch {
	case err == nil:
		args, env, err := arguments()
		if err == nil {
			err = p.Run(wire.Program{Args: args, Env: env})
		}
		if err != nil && !errors.Is(err, errEnding) {
			p.over <- end{ran: true, exit: wire.Exit{Status: agent.NotStarted, Why: err.Error()}}
		}
	case !errors.Is(err, fs.ErrNotExist):
		p.over <- end{ran: true, exit: wire.Exit{Status: agent.NotStarted, Why: err.Error()}}
	case !p.harness.Connected():
		p.over <- end{why: fmt.Sprintf("no program: the initramfs has no %s, and the machine has no port %s over which a harness can deliver one",
			initramfs.Program, wire.PortName)}
	default:
		_ = p.loadShareModules() // a kernel without them can still run programs
		fmt.Fprintln(os.Stderr, initramfs.Ready)
	}
}

// arguments returns the arguments and environment variables of a built-in program.
func arguments() (args, env []string, err error) {
	args, env, err = initramfs.FromCommandLine(cmdline.FullCmdLine())
	return append(cmdline.GetUinitArgs(), args...), env, err
}

// errEnding says that the machine already powers off.
var errEnding = errors.New("the machine powers off")

// Run starts the program, in the foreground of the console. After an error it can be called again.
func (p *program) Run(w wire.Program) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch p.state {
	case booting:
		return fmt.Errorf("the guest still boots: wait until its console shows %q", initramfs.Ready)
	case running:
		return fmt.Errorf("%s has already been started: a machine runs it once", initramfs.Program)
	case ending:
		return errEnding
	}
	log.Printf("starting %s", initramfs.Program)
	cmd := exec.Command(initramfs.Program, w.Args...)
	cmd.Env = append(os.Environ(), w.Env...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &unix.SysProcAttr{Foreground: true, Ctty: 0} // so that Ctrl-C reaches it
	line := p.harness.ProgramEnd()
	if line != nil {
		cmd.ExtraFiles = []*os.File{line} // descriptor 3
		cmd.Env = append(cmd.Env, wire.ProgramVariable+"=3")
	}
	p.harness.Hold(cmd.SysProcAttr)
	pid, ended, err := p.children.Start(func() (int, error) {
		if err := cmd.Start(); err != nil {
			return 0, err
		}
		pid := cmd.Process.Pid
		return pid, cmd.Process.Release()
	})
	if err != nil {
		return err
	}
	if line != nil {
		line.Close()
	}
	p.state, p.pid = running, pid
	go func() {
		exit := agent.ExitOf(<-ended)
		if exit.Signal != 0 {
			exit.Why = aboutTheEnd(kernelLog(), pid)
		}
		p.over <- end{ran: true, exit: exit}
	}()
	return nil
}

// obeyWithin is the time that a program has to end after it was asked to.
const obeyWithin = 3 * time.Second

// PowerOff ends the program. Told says that the agent has asked the program to end. It cannot ask a
// program that does not use package guest, so PowerOff sends SIGTERM to such a program.
func (p *program) PowerOff(told bool) {
	const why = "the harness asked for it"
	p.mu.Lock()
	pid := p.pid
	if p.state != running {
		p.state = ending
		p.mu.Unlock()
		p.harness.PowerOff(why)
		p.over <- end{why: why}
		return
	}
	p.mu.Unlock()
	if !told {
		p.harness.PowerOff(why)
		unix.Kill(-pid, unix.SIGTERM) // to its process group
	}
	time.Sleep(obeyWithin)
	p.harness.Kill(pid)
}

// kernelLog returns the kernel's log, or "" if it cannot be read.
func kernelLog() string {
	size, err := unix.Klogctl(unix.SYSLOG_ACTION_SIZE_BUFFER, nil)
	if err != nil {
		return ""
	}
	text := make([]byte, size)
	n, _ := unix.Klogctl(unix.SYSLOG_ACTION_READ_ALL, text)
	return string(text[:max(n, 0)])
}

// aboutTheEnd returns the last line of the kernel's log about a process, such as "uinit[57]: segfault
// at 0" or "Out of memory: Killed process 57 (uinit)", without its level and time. The console does
// not show the line, because its level is too low.
func aboutTheEnd(kernelLog string, pid int) (about string) {
	for line := range strings.Lines(kernelLog) {
		if _, text, ok := strings.Cut(line, "] "); ok &&
			(strings.Contains(text, fmt.Sprintf("[%d]: ", pid)) || strings.Contains(text, fmt.Sprintf(" process %d (", pid))) {
			about = strings.TrimSpace(text)
		}
	}
	return about
}
