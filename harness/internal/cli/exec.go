package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"

	"guesthouse.example/harness"
	"guesthouse.example/images"
)

const execUsage = `guesthouse exec [flags] [--] PROGRAM [ARGUMENT …]

Runs a program in a fresh machine as if it ran here: with this standard input, output and
error, and exits with the program's status. A PROGRAM with a slash is a file of this host.
Other programs are commands of the machine, or else files that PATH leads to.

If the working directory is in a Go module, the program sees the module at the same path,
and can change it without a change on this host. It starts in the same directory then, and
otherwise in /. It has the variables of this environment except for those that describe
this host, such as HOME and PATH. SIGINT, SIGTERM, SIGQUIT, SIGHUP, SIGUSR1 and SIGUSR2
reach the program. A second SIGINT or SIGTERM ends the machine.

With go test, exec needs no flags:

	go test -exec 'guesthouse exec' ./...
	GOARCH=arm64 go test -exec 'guesthouse exec' ./...

The exit status is that of the program, 128 plus the number of the signal that ended the
program, 127 if there is no such program, 126 if it cannot be run, and 125 if guesthouse
itself fails or the machine is lost.`

// execCommand gives every error the exit status of exec.
func execCommand(ctx context.Context, args []string, std stdio) error {
	ctx, signals := catchSignals(ctx)
	defer signals.stop()
	err := execProgram(ctx, signals, args, std)
	if err == nil || errors.Is(err, flag.ErrHelp) || errors.As(err, new(statusError)) || errors.As(err, new(silentStatus)) {
		return err
	}
	if failed := (*harness.CommandError)(nil); errors.As(err, &failed) {
		return statusError{err, failed.Code()}
	}
	return statusError{err, statusOwn}
}

// machineFlags are the flags that shape the machines of exec and test.
type machineFlags struct {
	cpus, memory int
	shares, env  listValue
	net          bool
}

const execMemory = 1024 // MiB; a template of a large machine is as small as that of a small one

func (f *machineFlags) register(flags *flag.FlagSet) {
	flags.IntVar(&f.cpus, "cpus", 0, "the `number` of the machine's processors (default 1)")
	flags.IntVar(&f.memory, "memory", execMemory, "the machine's memory `size` in MiB")
	flags.Var(&f.shares, "share", "a `directory` of this host that the program sees, as DIR, DIR:PATH or DIR:PATH:MODE; the PATH in the machine is that of DIR if it is missing; MODE is ro (the default), rw, or overlay, which keeps changes in the machine; may be repeated")
	flags.Var(&f.env, "env", "a `variable`, as NAME=VALUE, or NAME for its value here; may be repeated")
	flags.BoolVar(&f.net, "net", false, "let the program connect to everything that this host can reach")
}

// A listValue is a flag that may be repeated.
type listValue []string

func (l *listValue) String() string { return strings.Join(*l, " ") }

func (l *listValue) Set(value string) error {
	*l = append(*l, value)
	return nil
}

const modulesUsage = "the `directory` of the modules of a kernel file, such as /lib/modules/RELEASE"

func execProgram(ctx context.Context, signals *signals, args []string, std stdio) error {
	flags := flag.NewFlagSet("exec", flag.ContinueOnError)
	var image imageFlags
	var shape machineFlags
	flags.StringVar(&image.target, "target", "", "the `target` (default: the one for which PROGRAM is built, or that of this host's architecture)")
	flags.StringVar(&image.kernel, "kernel", "", kernelUsage)
	flags.StringVar(&image.modules, "modules", "", modulesUsage)
	flags.StringVar(&image.cache, "cache", "", cacheUsage)
	shape.register(flags)
	dir := flags.String("dir", "", "the `directory` in the machine in which the program starts")
	terminal := flags.Bool("t", false, "give the program a terminal, which this terminal shows")
	if err := parse(flags, args, std, execUsage); err != nil {
		return err
	}
	if flags.NArg() == 0 {
		return fmt.Errorf("exec: no PROGRAM (%w; see -h)", errUsage)
	}
	p, err := newProgram(flags.Arg(0), flags.Args()[1:], *dir, shape)
	if err != nil {
		return fmt.Errorf("exec: %w", err)
	}
	if image.target == "" {
		image.target = p.target.Name
	} else if err := p.check(image.target); err != nil {
		return fmt.Errorf("exec: %w", err)
	}

	built, err := image.platform(ctx, std.err)
	if err != nil {
		return err
	}
	p.dependsOn(built)
	m, err := harness.Boot(ctx, p.spec(built, shape))
	if err != nil {
		return err
	}
	defer m.Close()
	return p.finish(ctx, m, p.run(ctx, signals, m, std, *terminal))
}

// platform returns what a machine without a guest program boots from. It is made from the sources of this
// program's own version of guesthouse, and the working directory and the go command's environment have
// no influence on it: platform changes the environment of this process.
func (f *imageFlags) platform(ctx context.Context, log io.Writer) (images.Image, error) {
	for _, name := range []string{"GOARCH", "GOOS", "GOARM", "GO386", "GOAMD64", "GOARM64", "GOFLAGS", "GOEXPERIMENT", "CGO_ENABLED"} {
		os.Unsetenv(name)
	}
	os.Setenv("GOWORK", "off")
	dir, err := images.OwnDir(ctx)
	if err != nil {
		return images.Image{}, err
	}
	o := f.options(log)
	o.Dir = dir
	return images.Platform(ctx, f.target, o)
}
