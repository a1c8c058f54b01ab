// Guesthouse boots a guest in an emulated machine and gives its serial console,
// builds what it boots from, and drives traffic into it.
//
//	guesthouse run [-target T] [-guest PACKAGE] …   boot and give the console
//	guesthouse build [-target T] [-guest PACKAGE]   build kernel and initramfs, print their paths
//	guesthouse bundle RECORD                        pack a record with all that boots its machine elsewhere
//	guesthouse traffic NETWORK ADDRESS …            check an echo service, or load it
//	guesthouse doctor                               check what this host has for running guests
//	guesthouse targets                              list the targets
//	guesthouse templates [-clear]                   list the saved machines, or remove them
//	guesthouse images [-clear]                      list what is booted from, or remove it
//
// Each command explains its flags with -h. The exit status is 0 for success, 1
// for a failure, 2 for a wrong command line, and 128 and the signal's number
// after a signal. When the guest's program ends without having been asked to, run exits with that
// program's status, or with 128 and the number of the signal that ended it, and says so.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"

	"guesthouse.example/harness"
	"guesthouse.example/images"
	"guesthouse.example/internal/imagecache"
	"guesthouse.example/internal/printable"
)

func main() {
	os.Exit(guesthouse(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

const usage = `guesthouse boots a guest in an emulated machine and gives its serial console.

usage:
	guesthouse run [flags]       boot a machine and give its console
	guesthouse build [flags]     build kernel and initramfs and print their paths
	guesthouse bundle [-o FILE] RECORD
	                             pack a record with all that boots its machine elsewhere
	guesthouse traffic [flags] NETWORK ADDRESS
	                             check an echo service, or load it
	guesthouse doctor [flags]    check what this host has for running guests
	guesthouse targets           list the targets
	guesthouse templates [-clear]
	                             list the saved machines that run restores, or remove them
	guesthouse images [-clear]   list the kernels and initramfs in the cache, or remove them

Each command explains its flags with -h.
`

// A command reads its arguments, does its work and returns an error to print.
type command func(ctx context.Context, args []string, std stdio) error

type stdio struct {
	in       *os.File
	out, err io.Writer
}

var commands = map[string]command{
	"run":       runCommand,
	"build":     buildCommand,
	"bundle":    bundleCommand,
	"traffic":   trafficCommand,
	"doctor":    doctorCommand,
	"targets":   targetsCommand,
	"templates": templatesCommand,
	"images":    imagesCommand,
}

// errUsage is wrapped by every error that a wrong command line causes.
var errUsage = errors.New("wrong usage")

// A signalError is the cause of the end of the context that every command gets.
type signalError struct{ syscall.Signal }

func (e signalError) Error() string { return "ended by signal: " + e.Signal.String() }

// guesthouse is the whole program: its result is the exit status.
func guesthouse(args []string, stdin *os.File, stdout, stderr io.Writer) int {
	if len(args) == 0 {
		fmt.Fprint(stderr, usage)
		return 2
	}
	if args[0] == "help" || args[0] == "-h" || args[0] == "-help" || args[0] == "--help" {
		_, err := fmt.Fprint(stdout, usage)
		return report(context.Background(), err, stderr)
	}
	run, ok := commands[args[0]]
	if !ok {
		fmt.Fprintf(stderr, "guesthouse: error: unknown command %q\nguesthouse: hint: the commands are run, build, bundle, traffic, doctor, targets, templates and images\n", args[0])
		return 2
	}

	signal.Ignore(syscall.SIGXFSZ) // the write that is over the limit says so
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT,
		syscall.SIGPIPE) // whoever read our output has gone: end in order, too
	defer signal.Stop(signals)
	go func() {
		for {
			select {
			case s := <-signals:
				if s != syscall.SIGPIPE || isBroken(1) || isBroken(2) {
					cancel(signalError{s.(syscall.Signal)})
				}
			case <-ctx.Done():
				return
			}
		}
	}()

	err := run(ctx, args[1:], stdio{stdin, stdout, stderr})
	return report(ctx, err, stderr)
}

// isBroken reports whether what is written to a descriptor has no reader any
// more. SIGPIPE does not tell which one it was: a connection that its peer has
// closed raises it too, and that is the business of whoever wrote to it.
func isBroken(fd int32) bool {
	state := []unix.PollFd{{Fd: fd, Events: unix.POLLOUT}}
	_, err := unix.Poll(state, 0)
	return err == nil && state[0].Revents&unix.POLLERR != 0
}

// report prints an error as "error:" and "hint:" and returns the exit status.
func report(ctx context.Context, err error, stderr io.Writer) int {
	var signaled signalError
	if errors.As(context.Cause(ctx), &signaled) {
		fmt.Fprintf(stderr, "guesthouse: %v\n", signaled)
		return 128 + int(signaled.Signal)
	}
	if err == nil || errors.Is(err, flag.ErrHelp) {
		return 0
	}
	what, hint := err.Error(), ""
	var image *images.Error
	var cache *imagecache.Error
	var missing *harness.MissingQEMUError
	var kvm *harness.KVMError
	switch {
	case errors.As(err, new(*missingError)):
		hint = bundleHint
	case errors.As(err, &image):
		what, hint = image.Cause(), image.Hint
	case errors.As(err, &cache):
		what, hint = cache.Cause(), cache.Hint
	case errors.As(err, &missing):
		what, hint = "QEMU is missing: "+missing.Err.Error(), missing.Hint()
	case errors.As(err, &kvm):
		what, hint = kvm.Cause(), kvm.Hint()
	}
	fmt.Fprintf(stderr, "guesthouse: error: %s\n", printable.Text(what))
	if hint != "" {
		fmt.Fprintf(stderr, "guesthouse: hint: %s\n", printable.Text(hint))
	}
	if errors.Is(err, errUsage) {
		return 2
	}
	if exit := (*harness.ExitError)(nil); errors.As(err, &exit) {
		return exit.Code()
	}
	return 1
}

// parse reads a command's flags. It says what is wrong in one line, and
// everything with -h.
func parse(flags *flag.FlagSet, args []string, std stdio, usage string) error {
	flags.SetOutput(io.Discard)
	flags.Usage = func() {}
	err := flags.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		var text bytes.Buffer
		fmt.Fprintf(&text, "usage: %s\n\n", usage)
		flags.SetOutput(&text)
		flags.PrintDefaults()
		if _, writeErr := std.out.Write(text.Bytes()); writeErr != nil {
			return writeErr
		}
		return err
	}
	if err != nil {
		return fmt.Errorf("%s: %w (%w; -h explains)", flags.Name(), err, errUsage)
	}
	return nil
}
