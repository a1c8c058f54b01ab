// Package guest is for programs that run inside an emulated machine. [Main] starts
// the program's socket services and serves a shell on the serial console. A guest
// need not use the package: init starts any program.
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
// Init loads the drivers, brings the network up, and then starts the program as
// /bin/uinit. When the program ends, for any reason, the machine powers off. Outside a
// guest, Main prints an error and exits.
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

// Main runs the guest and does not return. It starts the default loop of package socketservice, calls
// setup, logs "ready" above the first prompt of the console's shell, and serves the shell until a person
// types poweroff or the harness asks for the power-off. Then it stops the loop and exits with status 0.
// If a step fails, or init could not bring the network up, Main logs the error and exits with status 1.
// The machine powers off when its program has ended.
//
// Main sets the default logger of package slog to one that writes Zephyr's log format to the console.
// Setup and the services can use it. The attribute "module" names the module.
func Main(setup func() error) {
	if err := insideMachine(); err != nil {
		fmt.Fprintln(os.Stderr, "guest:", err)
		os.Exit(1)
	}
	console := shell.New(os.Stdin, os.Stdout)
	log := slog.New(zephyrlog.New(console, nil)).With(zephyrlog.ModuleKey, module)
	slog.SetDefault(log)
	harness = openLine(func() { powerOff("the harness asked for it", 0) })
	if err := run(console, setup); err != nil {
		log.Error(err.Error())
		powerOff(err.Error(), 1)
	}
	powerOff("the command poweroff on the console", 0)
}

func run(console *shell.Shell, setup func() error) error {
	// If drivers are missing, so is the network card: the first error is the cause of the second.
	for _, variable := range []string{initramfs.ModulesError, initramfs.NetworkError} {
		if failed := os.Getenv(variable); failed != "" {
			return errors.New(failed)
		}
	}
	// Without a service the loop cannot start. A guest that does not use package
	// socketservice needs no loop.
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

// readyLine returns the log line that reports that the machine is ready: setup has returned without
// error, the services run and the console accepts commands. The harness waits for the line and for the
// prompt below it. The line does not depend on the default logger, which setup may change.
func readyLine() string {
	var line strings.Builder
	slog.New(zephyrlog.New(&line, nil)).With(zephyrlog.ModuleKey, module).Info("ready")
	return line.String()
}

// module is the module of Main's records in the log.
const module = "guesthouse"

// harness leads to the harness.
var harness *line

// Event sends a text to the harness. A test waits for it with Machine.Event. Unlike a console line, it
// cannot mix with the output of other code. Events arrive in the order of the calls, each once. In a
// machine that is restored from a template, the test also receives, once, each event from before the
// save. Event cuts the text off after 64 KiB. Call Event in setup or later. In a machine that has no
// connection to a harness, Event does nothing.
func Event(text string) { harness.tell(wire.Event, wireText(text)) }

// OnRestore registers a function that package guest calls after a save, in the saved machine when it
// continues and in each machine that is restored from the template. The function can draw a new seed,
// for example, or reopen a connection.
//
// All programs are stopped from before the save until the kernel has new entropy, the host's time
// and a new BootID. Then the programs continue, and package guest calls the functions one after the
// other, in the order of their registration, while the rest of the program runs. The harness forwards
// no port to the machine until they have returned, for which they have 10 s. In a prefetched machine,
// package guest calls them when a test takes the machine.
func OnRestore(f func()) {
	onRestore.mu.Lock()
	defer onRestore.mu.Unlock()
	onRestore.funcs = append(onRestore.funcs, f)
	if len(onRestore.funcs) == 1 {
		harness.tell(wire.Subscribe, nil)
	}
}

// BootID returns the identity of this boot or restore of the machine, a UUID. After a save, the saved
// machine and each restored machine get new identities. Other programs find the identity in
// /proc/sys/kernel/random/boot_id.
func BootID() string { return agent.BootID() }

// insideMachine returns an error outside a guest, where Main would power off the user's computer.
func insideMachine() error {
	_, err := os.Stat(initramfs.ModulesFile)
	if err == nil && os.Getppid() == 1 {
		return nil
	}
	return errors.New(`this program runs only in an emulated machine: boot it with "guesthouse run -guest PACKAGE"`)
}

// off is locked by the first call of powerOff and never unlocked.
var off sync.Mutex

// stopWithin bounds the wait for a handler that runs.
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
	if harness == nil { // this is not guesthouse's init, which would power off
		fmt.Fprintln(os.Stderr, "guest: power off:", poweroff.Now(os.Stdout, ""))
	}
	os.Exit(status)
}
