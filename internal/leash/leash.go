package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"guesthouse.example/internal/sys"
)

// grace is how long the command's processes have to end after the interrupt.
const grace = 10 * time.Second

// run runs the command and returns its exit status once no process of it is left.
func run(parent int, args []string, terminal *os.File, stderr io.Writer) (status int, err error) {
	path, err := exec.LookPath(args[0])
	if err != nil {
		return 0, err
	}
	signals := make(chan os.Signal, 2)
	notify(signals, unix.SIGTERM, unix.SIGHUP)
	// The terminal sends Ctrl-C to the command too, and the command handles it. Leash catches the
	// signals instead of ignoring them, because the command would inherit an ignored signal.
	notify(make(chan os.Signal, 1), unix.SIGINT, unix.SIGQUIT)

	// The kernel signals the parent's death to this thread, and this thread's death to the command.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGTERM), 0, 0, 0); err != nil {
		return 0, os.NewSyscallError("prctl PR_SET_PDEATHSIG", err)
	}
	if os.Getppid() != parent { // the parent died before the prctl
		return 128 + int(unix.SIGTERM), nil
	}
	// Orphaned processes of the command become children of this process.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return 0, os.NewSyscallError("prctl PR_SET_CHILD_SUBREAPER", err)
	}
	defer keepTerminal(terminal)()
	child, err := syscall.ForkExec(path, args, &syscall.ProcAttr{
		Env: os.Environ(), Files: []uintptr{0, 1, 2},
		Sys: &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM},
	})
	if err != nil {
		return 0, &os.PathError{Op: "start", Path: path, Err: err}
	}

	ended := make(chan reaped)
	go reap(ended)
	status = -1
	ending, killing := false, false
	var late <-chan time.Time
	for {
		select {
		case r, more := <-ended:
			if !more {
				return status, nil
			}
			if r.pid == child && status < 0 {
				status = exitStatus(r.status)
			}
			if r.pid == child && !ending {
				ending, late = true, time.After(grace)
				interrupt()
			}
		case s := <-signals:
			if status < 0 {
				status = 128 + int(s.(syscall.Signal))
			}
			killing = ending
			if !ending {
				ending, late = true, time.After(grace)
				interrupt()
			}
		case <-late:
			killing = true
		}
		// The children of a killed process become leash's children, and reap reports their ends too.
		if killing {
			if held := killAll(); held != nil {
				fmt.Fprintf(stderr, "leash: these processes cannot be killed: %v\n", held)
				return status, nil
			}
		}
	}
}

// notify catches signals, except those that the parent has set to be ignored, as nohup does.
func notify(c chan<- os.Signal, signals ...os.Signal) {
	for _, s := range signals {
		if !signal.Ignored(s) {
			signal.Notify(c, s)
		}
	}
}

type reaped struct {
	pid    int
	status unix.WaitStatus
}

// reap reports every child that ends, and closes ended when no child is left.
func reap(ended chan<- reaped) {
	for {
		var r reaped
		var err error
		r.pid, err = unix.Wait4(-1, &r.status, 0, nil)
		switch err {
		case nil:
			ended <- r
		case unix.EINTR:
		default:
			close(ended)
			return
		}
	}
}

func exitStatus(s unix.WaitStatus) int {
	if s.Signaled() {
		return 128 + int(s.Signal())
	}
	return s.ExitStatus()
}

// interrupt sends the command and its descendants SIGINT, as Ctrl-C does. It spares processes in
// process groups of their own, because their owners end them: a harness completes the record and
// then ends its QEMU.
func interrupt() {
	group := unix.Getpgrp()
	for _, p := range sys.Descendants(os.Getpid()) {
		if p.Group == group {
			unix.Kill(p.PID, unix.SIGINT)
			unix.Kill(p.PID, unix.SIGCONT) // a stopped process would not notice
		}
	}
}

// killAll kills every descendant. If it can kill none of them, it returns them.
func killAll() (held []sys.Process) {
	all := sys.Descendants(os.Getpid())
	for _, p := range all {
		if unix.Kill(p.PID, unix.SIGKILL) == unix.EPERM {
			held = append(held, p)
		}
	}
	if len(held) < len(all) {
		return nil
	}
	return held
}

// keepTerminal returns a function that restores the terminal's present modes, because a killed
// command cannot restore them.
func keepTerminal(f *os.File) (restore func()) {
	fd := int(f.Fd())
	before, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return func() {} // not a terminal
	}
	state, _ := term.GetState(fd)
	return func() {
		now, err := unix.IoctlGetTermios(fd, unix.TCGETS)
		// In the background, another process owns the terminal, and the kernel would stop leash.
		if group, _ := unix.IoctlGetInt(fd, unix.TIOCGPGRP); err == nil && *now != *before && group == unix.Getpgrp() {
			term.Restore(fd, state)
		}
	}
}
