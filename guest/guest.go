// Package guest is what runs inside the machine: [Main] turns a program that
// registers socket services into the one program of an emulated target. It
// brings the network up, starts the services and gives a shell on the serial
// console. Init has loaded the drivers before it starts the program.
//
//	var upper = socketservice.Define("upper", serve, 1)
//
//	func main() { guest.Main(setup) }
//
//	func setup() error {
//		fd, err := socketservice.ListenUDP(4242)
//		if err != nil {
//			return err
//		}
//		return upper.Register([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, nil)
//	}
//
// Such a program is no ordinary one: init starts it as uinit in a
// machine that is its own, and when it ends, however it does, the machine
// powers off.
// Outside such a machine Main refuses to run.
package guest

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"guesthouse.example/guest/internal/agent"
	"guesthouse.example/guest/internal/poweroff"
	"guesthouse.example/guest/internal/shell"
	"guesthouse.example/guest/socketservice"
	"guesthouse.example/guest/zephyrlog"
	"guesthouse.example/internal/initramfs"
	"guesthouse.example/internal/wire"
)

// Main runs the guest and does not return. It configures eth0, starts the default loop of package
// socketservice, calls setup, logs "ready" above the first prompt of the console's shell and
// serves that until somebody says poweroff or the harness asks for it. Then the program ends with
// status 0. An error on the way is logged, and the program ends with status 1. The machine powers
// off when its program has ended.
//
// Main makes the default logger of package slog write Zephyr's log format to
// the console, for setup and the services too; the attribute "module" names the
// module.
func Main(setup func() error) {
	if err := insideMachine(); err != nil {
		fmt.Fprintln(os.Stderr, "guest:", err)
		os.Exit(1)
	}
	console := shell.New(os.Stdin, os.Stdout)
	log := slog.New(zephyrlog.New(console, nil)).With(zephyrlog.ModuleKey, module)
	slog.SetDefault(log)
	harness = openLine(func() { powerOff("the harness asked for it", 0) })
	if err := run(log, console, setup); err != nil {
		log.Error(err.Error())
		powerOff(err.Error(), 1)
	}
	powerOff("the command poweroff on the console", 0)
}

func run(log *slog.Logger, console *shell.Shell, setup func() error) error {
	if failed := os.Getenv(initramfs.ModulesError); failed != "" {
		return errors.New(failed) // the network card would be missing, without the cause
	}
	if err := configureNetwork(networkCard); err != nil {
		return err
	}
	var network agent.Announcer
	err := network.Prepare()
	if err == nil {
		err = network.Announce()
	}
	if err != nil {
		log.Warn(err.Error()) // the network asks when it has to
	}
	// Without a service there is no loop to run, and none is needed by a
	// guest that serves in another way; a later Register says so itself.
	for range socketservice.All() {
		if err := socketservice.Start(); err != nil {
			return err
		}
		break
	}
	if err := setup(); err != nil {
		return fmt.Errorf("setup: %w", err)
	}
	return console.Run(readyLine())
}

// readyLine returns the log line of a machine that is ready: setup has returned without error, the
// services run and the console takes commands. The harness waits for the line and for the prompt
// below it. The line is the same when setup has changed the default logger.
func readyLine() string {
	var line strings.Builder
	slog.New(zephyrlog.New(&line, nil)).With(zephyrlog.ModuleKey, module).Info("ready")
	return line.String()
}

// module is that of Main in the log.
const module = "guesthouse"

// harness is the line that leads to it.
var harness *line

// Event tells the harness something that a test waits for (Machine.Event there), apart
// from the console with all that others print. Events arrive in the order in which they
// were told, once in each machine, also in those that are restored from it. Of a
// text longer than 64 KiB the rest is cut off. It is to be called in setup or later;
// a machine without the harness's line says nothing.
func Event(text string) { harness.tell(wire.Event, wireText(text)) }

// OnRestore has a function called in each machine that is restored from the one that is saved later,
// and in that one when it goes on: for what a program must have of its own, as a seed, or must do
// anew. By then the kernel has new entropy, the host's clock and a new BootID, which the program
// cannot have used before: all programs stand still from before the save. The functions are called
// one after the other, in the order in which they were given, while the rest of the program runs,
// and before the harness forwards a port to the machine. They have 10 s. In a machine that is
// restored before somebody asks for it they are called when somebody does.
func OnRestore(f func()) {
	onRestore.mu.Lock()
	defer onRestore.mu.Unlock()
	onRestore.funcs = append(onRestore.funcs, f)
	if len(onRestore.funcs) == 1 {
		harness.tell(wire.Subscribe, nil)
	}
}

// BootID tells the boots and the restorations of machines apart: a machine that
// was saved, and each that is restored from it, has another one from then on. It is
// written as in /proc/sys/kernel/random/boot_id, where other programs find it too.
func BootID() string { return agent.BootID() }

const networkCard = "eth0"

// insideMachine refuses to go on where powering off would hit the user's own
// computer.
func insideMachine() error {
	_, err := os.Stat(initramfs.ModulesFile)
	if err == nil && os.Getppid() == 1 {
		return nil
	}
	return errors.New(`this program runs as the one program of an emulated machine; boot it with "guesthouse run -guest PACKAGE"`)
}

// off is held by whoever powers the machine off, for good.
var off sync.Mutex

// stopWithin bounds the wait for a handler that does not return.
const stopWithin = time.Second

// powerOff ends the services and the program, and with it the machine. It does not return. The
// first reason counts.
func powerOff(why string, status int) {
	off.Lock()
	harness.tell(wire.PowerOff, wireText(why))
	stopped := make(chan struct{})
	go func() {
		socketservice.Stop() // it says only that there was nothing to stop
		close(stopped)
	}()
	select {
	case <-stopped:
	case <-time.After(stopWithin):
	}
	if harness == nil { // an init that is not ours need not power off
		fmt.Fprintln(os.Stderr, "guest: power off:", poweroff.Now(os.Stdout, ""))
	}
	os.Exit(status)
}
