package main

import (
	"fmt"
	"log"
	"os"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"guesthouse.example/guest/internal/agent"
	"guesthouse.example/internal/wire"
)

// run runs the guest's program until it ends.
func run(harness *agent.Agent, children *agent.Children, cmd *exec.Cmd) wire.Exit {
	log.Printf("starting %s", cmd.Path)
	if far := harness.ProgramEnd(); far != nil {
		cmd.ExtraFiles = []*os.File{far} // descriptor 3
		cmd.Env = append(os.Environ(), wire.ProgramVariable+"=3")
	}
	harness.Hold(cmd.SysProcAttr)
	pids := make(chan int, 1)
	harness.Start(func(told bool) {
		pid := <-pids
		pids <- pid
		end(harness, pid, told)
	})
	pid, ended, err := children.Start(func() (int, error) {
		if err := cmd.Start(); err != nil {
			return 0, err
		}
		pid := cmd.Process.Pid
		return pid, cmd.Process.Release()
	})
	if err != nil {
		return wire.Exit{Status: agent.NotStarted, Why: err.Error()}
	}
	pids <- pid
	if far := harness.ProgramEnd(); far != nil {
		far.Close()
	}
	exit := agent.ExitOf(<-ended)
	if exit.Signal != 0 {
		exit.Why = aboutTheEnd(kernelLog(), pid)
	}
	return exit
}

// obeyWithin is the time that a program has to end after it was asked to.
const obeyWithin = 3 * time.Second

// end ends the program. Told says that the agent has asked the program to end. It cannot ask a
// program that does not use package guest, so end sends SIGTERM to such a program.
func end(harness *agent.Agent, pid int, told bool) {
	if !told {
		harness.PowerOff("the harness asked for it")
		unix.Kill(-pid, unix.SIGTERM) // to its process group
	}
	time.Sleep(obeyWithin)
	harness.Kill(pid)
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
