// Init is the guest's first process. It differs from u-root's init in three ways: it starts the
// guest program on the console itself instead of on pipes, it runs the agent that talks to the
// harness, and it reports how the program ended before it powers the machine off.
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
		fmt.Fprintln(os.Stderr, "init: this program runs only as the first process of an emulated machine")
		os.Exit(1)
	}
	log.SetPrefix("init: ")
	log.SetFlags(0) // the machine's clock may still be wrong
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
	signal.Ignore(unix.SIGTTOU) // the program's process group is still in the foreground of the console
	log.Print("power off: ", poweroff.Now(os.Stdin, lastWords(exit, harness.Connected())))
}

// createRootfs mounts the file systems that u-root's init mounts. It mounts version 2 of the control
// groups instead of version 1, because it can freeze and kill several processes at once.
func createRootfs() {
	libinit.Create(libinit.PreNamespace, false)
	ulog.KernelLog.Reinit() // /dev/kmsg exists now
	libinit.Create(libinit.Namespace, false)
	libinit.Create([]libinit.Creator{
		libinit.Dir{Name: "/run", Mode: 0o755},
		libinit.Mount{Source: "tmpfs", Target: "/run", FSType: "tmpfs"},
		libinit.Mount{Source: "cgroup2", Target: "/sys/fs/cgroup", FSType: "cgroup2"},
	}, true)
}

// takeConsole makes init the leader of the console's session. When a session's leader ends, Linux
// hangs up the session's terminal and drops unsent output. If the guest program were the leader, its
// last output would be lost.
func takeConsole() error {
	if _, err := unix.Setsid(); err != nil {
		return fmt.Errorf("console: %w", os.NewSyscallError("setsid", err))
	}
	if err := unix.IoctlSetInt(0, unix.TIOCSCTTY, 0); err != nil {
		return fmt.Errorf("console: %w", os.NewSyscallError("TIOCSCTTY", err))
	}
	return nil
}

// inForeground makes a program run in the foreground of the console, so that Ctrl-C reaches it.
func inForeground(cmd *exec.Cmd) {
	cmd.SysProcAttr = &unix.SysProcAttr{Foreground: true, Ctty: 0}
}

// lastWords returns the lines that report the program's end on the console. Told says that the agent
// reports the end to the harness. Otherwise the harness reads the lines on the console, and they begin
// with a newline, because the program may have left a line unfinished.
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
