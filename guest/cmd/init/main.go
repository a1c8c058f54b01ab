// Init is the guest's first process: u-root's, but that it starts the guest program on the
// console itself instead of on pipes to it, and that it says how that program ended before it
// powers the machine off.
package main

import (
	"errors"
	"fmt"
	"log"
	"os"
	"os/exec"
	"os/signal"
	"strings"

	"github.com/u-root/u-root/pkg/cmdline"
	"github.com/u-root/u-root/pkg/libinit"
	"golang.org/x/sys/unix"

	"guesthouse.example/guest/poweroff"
)

const program = "/bin/uinit"

func main() {
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "init: it is the first process of an emulated machine and nothing else")
		os.Exit(1)
	}
	log.SetPrefix("init: ")
	log.SetFlags(0) // the machine's clock may be wrong yet
	libinit.SetEnv()
	libinit.CreateRootfs()
	libinit.NetInit()
	if err := libinit.InstallAllModules(); err != nil {
		log.Print(err)
	}
	if err := takeConsole(); err != nil {
		log.Print(err)
	}
	log.Printf("starting %s", program)
	end, err := run(libinit.Command(program, libinit.WithArguments(cmdline.GetUinitArgs()...), inForeground))
	if err != nil {
		end = err.Error()
	}
	signal.Ignore(unix.SIGTTOU) // the console is still that of the program's process group
	for _, line := range aboutTheEnd(kernelLog()) {
		log.Print(line)
	}
	log.Printf("%s has ended: %s; the machine powers off", program, end)
	log.Print("power off: ", poweroff.Now(os.Stdin))
}

// takeConsole makes init the leader of the console's session. Linux hangs up a terminal when the
// leader of its session ends, and drops what has not been sent by then: the guest program's
// last words, if it were the leader.
func takeConsole() error {
	if _, err := unix.Setsid(); err != nil {
		return fmt.Errorf("console: %w", os.NewSyscallError("setsid", err))
	}
	if err := unix.IoctlSetInt(0, unix.TIOCSCTTY, 0); err != nil {
		return fmt.Errorf("console: %w", os.NewSyscallError("TIOCSCTTY", err))
	}
	return nil
}

// inForeground has a program run in the console's foreground: Ctrl-C is for it.
func inForeground(cmd *exec.Cmd) {
	cmd.SysProcAttr = &unix.SysProcAttr{Foreground: true, Ctty: 0}
}

// run waits for the end of a program and says what it was, as "exit status 2". Orphans, which
// are init's children, may end meanwhile.
func run(cmd *exec.Cmd) (end string, err error) {
	if err := cmd.Start(); err != nil {
		return "", err
	}
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return "", os.NewSyscallError("wait4", err)
		case pid == cmd.Process.Pid && status.Signaled():
			return fmt.Sprintf("signal %d (%v)", status.Signal(), status.Signal()), nil
		case pid == cmd.Process.Pid:
			return fmt.Sprintf("exit status %d", status.ExitStatus()), nil
		}
	}
}

// kernelLog returns what the kernel has logged, or nothing where it cannot be read.
func kernelLog() string {
	size, err := unix.Klogctl(unix.SYSLOG_ACTION_SIZE_BUFFER, nil)
	if err != nil {
		return ""
	}
	text := make([]byte, size)
	n, _ := unix.Klogctl(unix.SYSLOG_ACTION_READ_ALL, text)
	return string(text[:max(n, 0)])
}

// aboutTheEnd returns the lines of the kernel's log that tell of the guest program, as
// "uinit[57]: segfault at 0" or "Killed process 57 (uinit)". They are too mild for the console.
func aboutTheEnd(kernelLog string) (lines []string) {
	for line := range strings.Lines(kernelLog) {
		if strings.Contains(line, "uinit[") || strings.Contains(line, "(uinit)") {
			lines = append(lines, strings.TrimSuffix(line, "\n"))
		}
	}
	return lines
}
