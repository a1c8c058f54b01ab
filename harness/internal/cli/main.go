// Package cli is the command guesthouse. It is a package, and not the program itself, so that the module of package lan
// can have a program with more networks.
package cli

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"guesthouse.example/harness"
	"guesthouse.example/harness/internal/scenario"
	"guesthouse.example/images"
	"guesthouse.example/internal/imagecache"
	"guesthouse.example/internal/printable"
	"guesthouse.example/internal/target"
)

// Main runs the command line of this process and returns the exit status. lans makes the networks of run -net; it is
// nil in a program without package lan.
func Main(lans func(words string) (Lan, error)) int {
	newLan = lans
	return guesthouse(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
}

const usage = `guesthouse boots a guest in an emulated machine and connects you to its serial console.

usage:
	guesthouse run [flags]       boot a machine and connect to its console
	guesthouse exec [flags] PROGRAM [ARGUMENT …]
	                             run a program in a fresh machine; go test -exec 'guesthouse exec'
	guesthouse test [flags] [packages]
	                             run go test with machines of several targets and kernels
	guesthouse check [flags] [FILE|DIRECTORY …]
	                             run scenarios: tests of machines as scripts, without Go
	guesthouse build [flags]     build a kernel and an initramfs and print their paths
	guesthouse bundle [-o FILE] RECORD
	                             pack a record with its kernel and initramfs, to boot it elsewhere
	guesthouse traffic [flags] NETWORK ADDRESS
	                             check or load an echo service
	guesthouse doctor [flags]    check whether this host can run guests
	guesthouse targets           list the targets
	guesthouse templates [-clear]
	                             list or remove the saved machines that run restores
	guesthouse images [-clear]   list or remove the cached kernels and initramfs
	guesthouse kernels [flags]   list the kernels to boot, by name

To list the flags of a command, use guesthouse COMMAND -h. The language of scenarios is in
guesthouse help scenario.
`

// A command reads its arguments, does its work and returns the error to print.
type command func(ctx context.Context, args []string, std stdio) error

type stdio struct {
	in       *os.File
	out, err io.Writer
}

var commands = map[string]command{
	"run":       runCommand,
	"exec":      execCommand,
	"test":      testCommand,
	"check":     checkCommand,
	"build":     buildCommand,
	"bundle":    bundleCommand,
	"traffic":   trafficCommand,
	"doctor":    doctorCommand,
	"targets":   targetsCommand,
	"templates": templatesCommand,
	"images":    imagesCommand,
	"kernels":   kernelsCommand,
}

// errUsage is wrapped by every error that a wrong command line causes.
var errUsage = errors.New("wrong usage")

// A signalError is the cause of a command's context after a signal has cancelled it.
type signalError struct{ syscall.Signal }

func (e signalError) Error() string { return "ended by signal: " + e.Signal.String() }

// guesthouse runs the command line args and returns the exit status.
func guesthouse(args []string, stdin *os.File, stdout, stderr io.Writer) int {
	if len(args) == 0 {
		fmt.Fprint(stderr, usage)
		return 2
	}
	if args[0] == "help" || args[0] == "-h" || args[0] == "-help" || args[0] == "--help" {
		switch {
		case len(args) == 1:
			_, err := fmt.Fprint(stdout, usage)
			return report(context.Background(), err, stderr)
		case args[1] == "scenario":
			return report(context.Background(), scenario.Help(stdout), stderr)
		}
		args = []string{args[1], "-h"}
	}
	run, ok := commands[args[0]]
	if !ok {
		fmt.Fprintf(stderr, "guesthouse: error: unknown command %q\nguesthouse: hint: the commands are run, exec, test, check, build, bundle, traffic, doctor, targets, templates, images and kernels\n", args[0])
		return 2
	}

	signal.Ignore(syscall.SIGXFSZ) // so that a write beyond the file size limit returns an error
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	if args[0] == "exec" { // its program gets the signals
		return report(ctx, run(ctx, args[1:], stdio{stdin, stdout, stderr}), stderr)
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT,
		syscall.SIGPIPE) // the reader of the output has gone: the command cleans up before it ends
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

// isBroken reports whether a descriptor has lost its reader. SIGPIPE does not
// name the descriptor. A write to a connection that its peer has closed raises
// SIGPIPE too, but there the write's error suffices.
func isBroken(fd int32) bool {
	state := []unix.PollFd{{Fd: fd, Events: unix.POLLOUT}}
	_, err := unix.Poll(state, 0)
	return err == nil && state[0].Revents&unix.POLLERR != 0
}

// report prints an error as "error:" and "hint:" and returns the exit status.
func report(ctx context.Context, err error, stderr io.Writer) int {
	var signaled signalError
	if errors.As(context.Cause(ctx), &signaled) || errors.As(err, &signaled) {
		fmt.Fprintf(stderr, "guesthouse: %v\n", signaled)
		return 128 + int(signaled.Signal)
	}
	if err == nil || errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if status := silentStatus(0); errors.As(err, &status) {
		return int(status)
	}
	what, hint := err.Error(), ""
	var image *images.Error
	var cache *imagecache.Error
	var missing *harness.MissingQEMUError
	var kvm *harness.KVMError
	switch {
	case errors.As(err, new(*missingError)):
		hint = bundleHint
	case errors.Is(err, errNoLan):
		hint = noLanHint
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
	if status := (statusError{}); errors.As(err, &status) {
		return status.status
	}
	if errors.Is(err, errUsage) {
		return 2
	}
	return 1
}

// A statusError is an error for which guesthouse exits with a status of its own.
type statusError struct {
	error
	status int
}

func (e statusError) Unwrap() error { return e.error }

// A silentStatus is the exit status of a command that has nothing to say, because the program that it ran, or
// its own output, has said why.
type silentStatus int

func (s silentStatus) Error() string { return fmt.Sprint("exit status ", int(s)) }

// statusOwn is the exit status of a command that runs a program in the guest, if guesthouse itself fails or
// the machine is lost, so that the program's status is unknown. Docker uses the same status.
const statusOwn = 125

// parse reads a command's flags. Its error is one line; -h prints the whole help.
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
		return fmt.Errorf("%s: %w (%w; see -h)", flags.Name(), err, errUsage)
	}
	return nil
}

// parseFlags is parse for a command that takes flags and no other arguments.
func parseFlags(flags *flag.FlagSet, args []string, std stdio, usage string) error {
	err := parse(flags, args, std, usage)
	if err == nil && flags.NArg() > 0 {
		err = fmt.Errorf("%s: unexpected argument %q (%w; see -h)", flags.Name(), flags.Arg(0), errUsage)
	}
	return err
}

// chosenTargets returns the targets of a command whose flag -target is the only one to look at, or empty for
// all.
func chosenTargets(only string) ([]target.Target, error) {
	if only == "" {
		return target.All(), nil
	}
	t, err := target.Lookup(only)
	if err != nil {
		return nil, fmt.Errorf("%w (%w; see -h)", err, errUsage)
	}
	return []target.Target{t}, nil
}

// targetsOf returns the targets of a list, all of them, or for an empty list that of GOARCH or of this host.
func targetsOf(list string) (all []target.Target, err error) {
	switch list {
	case "":
		t, err := ofArchitecture(cmp.Or(os.Getenv("GOARCH"), runtime.GOARCH))
		return []target.Target{t}, err
	case "all":
		return target.All(), nil
	}
	for name := range strings.SplitSeq(list, ",") {
		t, err := target.Lookup(name)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(all, func(other target.Target) bool { return other.Name == t.Name }) {
			return nil, fmt.Errorf("the target %s is there twice", t.Name)
		}
		all = append(all, t)
	}
	return all, nil
}

// ofArchitecture returns the target whose programs have a GOARCH.
func ofArchitecture(goarch string) (target.Target, error) {
	for _, t := range target.All() {
		if t.GOARCH == goarch {
			return t, nil
		}
	}
	return target.Target{}, fmt.Errorf("no target runs programs for %s: name one with -target", goarch)
}
