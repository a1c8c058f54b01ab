package main

import (
	"context"
	"flag"
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

const leashUsage = `guesthouse leash [-parent PID] COMMAND [ARGUMENT…]

Runs a command of which nothing stays behind, for the recipes of a Makefile: make that
is killed takes nobody with it. When the command ends, when leash is told to end
(SIGTERM, SIGHUP) and when its parent dies, all that the command has started is
interrupted as by Ctrl-C, and what then still runs after 10 s is killed, or when leash is
told again. The command has the terminal and the process group of leash, so that job
control works as without. The exit status is the command's, 128 and its number for a signal.`

const leashGrace = 10 * time.Second

// leash handles signals itself: Ctrl-C is the command's business, which gets it from the
// terminal too.
func leash(args []string, std stdio) int {
	parent := os.Getppid()
	flags := flag.NewFlagSet("leash", flag.ContinueOnError)
	named := flags.Int("parent", 0, "the `process` whose death ends the command: $PPID in a recipe (default what the parent is when leash starts)")
	err := parse(flags, args, std, leashUsage)
	if *named != 0 {
		parent = *named
	}
	status := 0
	switch {
	case err != nil:
	case flags.NArg() == 0:
		err = fmt.Errorf("leash: want a command (%w; -h explains)", errUsage)
	default:
		if status, err = runLeashed(parent, flags.Args(), std.in, std.err); err != nil {
			err = fmt.Errorf("leash: %w", err)
		}
	}
	if err != nil {
		return report(context.Background(), err, std.err)
	}
	return status
}

func runLeashed(parent int, args []string, terminal *os.File, stderr io.Writer) (status int, err error) {
	path, err := exec.LookPath(args[0])
	if err != nil {
		return 0, err
	}
	told := make(chan os.Signal, 2)
	notify(told, unix.SIGTERM, unix.SIGHUP)
	// Caught and not ignored, or the command would ignore them too.
	notify(make(chan os.Signal, 1), unix.SIGINT, unix.SIGQUIT)

	// The parent's death is told to this thread, and this thread's to the command.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGTERM), 0, 0, 0); err != nil {
		return 0, os.NewSyscallError("prctl PR_SET_PDEATHSIG", err)
	}
	if os.Getppid() != parent { // it died before the kernel would have told
		return 128 + int(unix.SIGTERM), nil
	}
	// Orphans of the command become children of this process.
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
				ending, late = true, time.After(leashGrace)
				interrupt()
			}
		case s := <-told:
			if status < 0 {
				status = 128 + int(s.(syscall.Signal))
			}
			killing = ending
			if !ending {
				ending, late = true, time.After(leashGrace)
				interrupt()
			}
		case <-late:
			killing = true
		}
		// What dies hands its children to us, and that is an event too.
		if killing {
			if held := killAll(); held != nil {
				fmt.Fprintf(stderr, "guesthouse: leash: these processes cannot be ended: %v\n", held)
				return status, nil
			}
		}
	}
}

// notify has signals delivered, except those that our parent wants ignored, as nohup does.
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

// reap tells of every child that ends, and closes ended when there is none any more.
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

// interrupt does to the command and its descendants what Ctrl-C does. It leaves those
// in process groups of their own to their owners, as a QEMU to its harness, which
// writes its record to the end.
func interrupt() {
	group := unix.Getpgrp()
	for _, p := range sys.Descendants(os.Getpid()) {
		if p.Group == group {
			unix.Kill(p.PID, unix.SIGINT)
			unix.Kill(p.PID, unix.SIGCONT) // what is stopped would not notice
		}
	}
}

// killAll kills every descendant. It returns them if none of them could be killed.
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

// keepTerminal returns what gives a terminal back as it is now: a command that was killed
// cannot.
func keepTerminal(f *os.File) (restore func()) {
	fd := int(f.Fd())
	before, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return func() {} // no terminal
	}
	state, _ := term.GetState(fd)
	return func() {
		now, err := unix.IoctlGetTermios(fd, unix.TCGETS)
		// In the background it is another's, and we would be stopped.
		if group, _ := unix.IoctlGetInt(fd, unix.TIOCGPGRP); err == nil && *now != *before && group == unix.Getpgrp() {
			term.Restore(fd, state)
		}
	}
}
