// Init is the guest's first process: u-root's, but that it starts the guest program on the
// console itself instead of on pipes to it, that the agent of the harness lives in it, and that it
// says how the program ended before it powers the machine off.
package main

import (
	"fmt"
	"log"
	"os"
	"os/exec"
	"os/signal"
	"strings"

	"github.com/u-root/u-root/pkg/cmdline"
	"github.com/u-root/u-root/pkg/libinit"
	"github.com/u-root/u-root/pkg/ulog"
	"golang.org/x/sys/unix"

	"guesthouse.example/guest/internal/agent"
	"guesthouse.example/guest/internal/modules"
	"guesthouse.example/guest/internal/poweroff"
	"guesthouse.example/internal/initramfs"
	"guesthouse.example/internal/wire"
)

func main() {
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "init: it is the first process of an emulated machine and nothing else")
		os.Exit(1)
	}
	log.SetPrefix("init: ")
	log.SetFlags(0) // the machine's clock may be wrong yet
	libinit.SetEnv()
	createRootfs()
	libinit.NetInit()
	if err := libinit.InstallAllModules(); err != nil {
		log.Print(err)
	}
	if err := modules.Load(initramfs.ModulesFile); err != nil {
		log.Print(err)
		os.Setenv(initramfs.ModulesError, err.Error())
	}
	if err := takeConsole(); err != nil {
		log.Print(err)
	}
	children := agent.NewChildren()
	harness, err := agent.Open(children)
	if err != nil {
		log.Print(err)
	}
	exit := run(harness, children, libinit.Command(initramfs.Program, libinit.WithArguments(cmdline.GetUinitArgs()...), inForeground))
	harness.Ended(exit)
	signal.Ignore(unix.SIGTTOU) // the console is still that of the program's process group
	log.Print("power off: ", poweroff.Now(os.Stdin, lastWords(exit, harness.Connected())))
}

// createRootfs mounts what u-root's init mounts, with control groups of version 2: one
// tree in which programs can be frozen and killed together.
func createRootfs() {
	libinit.Create(libinit.PreNamespace, false)
	ulog.KernelLog.Reinit() // the device is there now
	libinit.Create(libinit.Namespace, false)
	libinit.Create([]libinit.Creator{
		libinit.Dir{Name: "/run", Mode: 0o755},
		libinit.Mount{Source: "tmpfs", Target: "/run", FSType: "tmpfs"},
		libinit.Mount{Source: "cgroup2", Target: "/sys/fs/cgroup", FSType: "cgroup2"},
	}, true)
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

// lastWords are the lines by which the console tells of the program's end. A harness that has no
// agent to hear of it looks for them at the start of a line, which the program may have left
// unfinished.
func lastWords(exit wire.Exit, told bool) string {
	var b strings.Builder
	if !told {
		b.WriteByte('\n')
	}
	if exit.Why != "" {
		fmt.Fprintf(&b, "init: %s\n", exit.Why)
	}
	fmt.Fprintf(&b, "init: %s has ended: %v; the machine powers off\n", initramfs.Program, exit)
	return b.String()
}
