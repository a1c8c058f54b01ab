// Package guest is for programs that run inside an emulated machine. [Main] brings
// the network up, starts the program's socket services, and serves a shell on the
// serial console. A guest need not use the package: init starts any program.
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
// Init loads the drivers and then starts the program as /bin/uinit. When the program
// ends, for whatever reason, the machine powers off. Main refuses to run anywhere
// else.
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
// socketservice, calls setup, logs "ready" above the first prompt of the console's shell, and serves
// the shell until a person types poweroff or the harness asks for the power-off. Then it stops the
// loop, and the program ends with status 0. If a step fails, Main logs the error, and the program
// ends with status 1. The machine powers off when its program has ended.
//
// Main makes the default logger of package slog write Zephyr's log format to the console, for setup
// and the services too. The attribute "module" names the module.
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
		log.Warn(err.Error()) // QEMU asks for the address when it needs it
	}
	// Without a service the loop does not start. A guest that serves in another
	// way needs no loop.
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

// module is the module of Main's records in the log.
const module = "guesthouse"

// harness leads to the harness.
var harness *line

// Event tells the harness something that a test waits for with Machine.Event, apart from the console
// and all that other code prints there. Events arrive in the order in which the program tells them.
// Each arrives once, and once more in each machine that is restored from this one. A text is cut off
// after 64 KiB. Call Event in setup or later. In a machine without the harness's line it does
// nothing.
func Event(text string) { harness.tell(wire.Event, wireText(text)) }

// OnRestore registers a function that is called after the machine was saved: in the machine when it
// goes on, and in each machine that is restored from it. The function can draw a new seed, for
// example, or open a connection again.
//
// All programs stand still from before the save until the kernel has new entropy, the host's clock
// and a new BootID. Then they go on, and the functions are called one after the other, in the order
// of their registration, while the rest of the program runs. The harness forwards no port to the
// machine until they have returned, for which they have 10 s. In a prefetched machine they are
// called when a test takes the machine.
func OnRestore(f func()) {
	onRestore.mu.Lock()
	defer onRestore.mu.Unlock()
	onRestore.funcs = append(onRestore.funcs, f)
	if len(onRestore.funcs) == 1 {
		harness.tell(wire.Subscribe, nil)
	}
}

// BootID identifies this boot or restore of the machine. After a save the machine that goes on and
// each machine that is restored from it have different ones. Other programs find it in
// /proc/sys/kernel/random/boot_id.
func BootID() string { return agent.BootID() }

const networkCard = "eth0"

// insideMachine returns an error on any other system, where Main would power off the user's own
// computer.
func insideMachine() error {
	_, err := os.Stat(initramfs.ModulesFile)
	if err == nil && os.Getppid() == 1 {
		return nil
	}
	return errors.New(`this program runs as the one program of an emulated machine; boot it with "guesthouse run -guest PACKAGE"`)
}

// off is locked by the first call of powerOff and never unlocked.
var off sync.Mutex

// stopWithin bounds the wait for a handler that does not return.
const stopWithin = time.Second

// powerOff stops the services and ends the program, and so the machine. It does not return. Only the
// first call counts.
func powerOff(why string, status int) {
	off.Lock()
	harness.tell(wire.PowerOff, wireText(why))
	stopped := make(chan struct{})
	go func() {
		socketservice.Stop() // fails only if no loop runs
		close(stopped)
	}()
	select {
	case <-stopped:
	case <-time.After(stopWithin):
	}
	if harness == nil { // another init may not power off
		fmt.Fprintln(os.Stderr, "guest: power off:", poweroff.Now(os.Stdout, ""))
	}
	os.Exit(status)
}
