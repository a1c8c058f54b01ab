// Init is the guest's first process. It loads the drivers, runs the agent that talks to the harness,
// brings the network up, and starts the guest program, /bin/uinit, on the console. When the program has
// ended, init reports how and powers the machine off.
//
// An initramfs without a guest program is a platform. Init then prints "init: ready" on the console and
// waits for the harness, which delivers a program and has init start it in the same way.
package main

import (
	"fmt"
	"log"
	"os"
	"os/signal"
	"strings"

	"github.com/u-root/u-root/pkg/libinit"
	"golang.org/x/sys/unix"

	"guesthouse.example/guest/internal/agent"
	"guesthouse.example/guest/internal/modules"
	"guesthouse.example/guest/internal/network"
	"guesthouse.example/guest/internal/poweroff"
	"guesthouse.example/internal/initramfs"
)

func main() {
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "init: this program runs only as the first process of an emulated machine")
		os.Exit(1)
	}
	log.SetPrefix("init: ")
	log.SetFlags(0) // the machine's clock may still be wrong
	// While no program is in the foreground of the console, Ctrl-C must not end init.
	signal.Notify(make(chan os.Signal, 1), unix.SIGINT, unix.SIGQUIT, unix.SIGTSTP)
	makeRootfs()
	libinit.NetInit()
	if err := libinit.InstallAllModules(); err != nil {
		log.Print(err)
	}
	if err := modules.Load(initramfs.ModulesFile); err != nil {
		log.Print(err)
		os.Setenv(initramfs.ModulesError, err.Error())
	}
	if err := modules.MakeNodes(); err != nil {
		log.Print(err)
	}
	if err := takeConsole(); err != nil {
		log.Print(err)
	}
	children := agent.NewChildren()
	harness, err := agent.Open(children)
	if err != nil {
		log.Print(err)
	}
	p := newProgram(harness, children)
	harness.Start(p)
	go func() { // the harness may ask for the power-off meanwhile
		if err := bringNetworkUp(p); err != nil {
			log.Print(err)
			os.Setenv(initramfs.NetworkError, err.Error())
		}
		p.begin()
	}()
	last := <-p.over
	harness.Covered()
	if last.ran {
		harness.Ended(last.exit)
	}
	signal.Ignore(unix.SIGTTOU) // the program's process group is still in the foreground of the console
	log.Print("power off: ", poweroff.Now(os.Stdin, lastWords(last, harness.Connected())))
}

// bringNetworkUp configures the network and announces the machine's addresses.
func bringNetworkUp(p *program) error {
	configure := network.Configure
	if network.FromHarness() {
		configure = p.awaitNetwork
	}
	if err := configure(); err != nil {
		return err
	}
	var addresses agent.Announcer
	err := addresses.Prepare()
	if err == nil {
		err = addresses.Announce()
	}
	if err != nil {
		log.Print(err) // QEMU asks for the address when it needs it
	}
	return nil
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

// lastWords returns the lines that report on the console why the machine powers off. Told says that the
// agent reports the program's end to the harness. Otherwise the harness reads the lines on the console,
// and they begin with a newline, because the program may have left a line unfinished.
func lastWords(last end, told bool) string {
	if !last.ran {
		return fmt.Sprintf("init: %s; the machine powers off\n", last.why)
	}
	var b strings.Builder
	if !told {
		b.WriteByte('\n')
	}
	if last.exit.Why != "" {
		fmt.Fprintf(&b, "init: %s\n", last.exit.Why)
	}
	fmt.Fprintf(&b, "init: %s has ended: %v; the machine powers off\n", initramfs.Program, last.exit)
	return b.String()
}
