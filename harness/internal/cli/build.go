package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"text/tabwriter"

	"guesthouse.example/harness"
	"guesthouse.example/images"
	"guesthouse.example/internal/target"
)

// imageFlags are the flags that select what a machine boots from.
type imageFlags struct {
	target, guest, kernel, modules, cache string

	dir string // where a relative path of a package begins; empty for the current directory
}

func (f *imageFlags) register(flags *flag.FlagSet) {
	flags.StringVar(&f.target, "target", "x86_64", "the `target`, one of the emulated machines that guesthouse targets lists")
	flags.StringVar(&f.guest, "guest", "guesthouse.example/guest/cmd/uinit", "the guest program: a main `package` that calls guest.Main")
	flags.StringVar(&f.kernel, "kernel", "", kernelUsage)
	flags.StringVar(&f.modules, "modules", "", modulesUsage)
	flags.StringVar(&f.cache, "cache", "", cacheUsage)
}

const kernelUsage = "the `kernel`: debian, debian:PACKAGE or debian:PACKAGE=VERSION for a package of the host's apt, gokrazy for a Linux of the Go module proxy (x86_64 and arm64), host for the kernel of this host, or a file or directory with a kernel (default debian, the tested one; gokrazy where there is no apt)"

const cacheUsage = "the cache `directory` for kernels and images (default: guesthouse in the user's cache directory)"

func (f *imageFlags) build(ctx context.Context, log io.Writer) (images.Image, error) {
	return images.Build(ctx, f.target, f.guest, f.options(log))
}

// fill makes a Spec boot the guest program. If builtIn is true, the program is part of the initramfs.
// Otherwise the harness delivers it.
func (f *imageFlags) fill(ctx context.Context, spec *harness.Spec, builtIn bool, cache *harness.TemplateCache, log io.Writer) error {
	if builtIn {
		image, err := f.build(ctx, log)
		setImage(spec, image, images.Executable{})
		return err
	}
	o := f.options(log)
	o.Compiling = func(platform images.Image) {
		expected := *spec
		setImage(&expected, platform, images.Executable{})
		cache.Expect(ctx, expected)
	}
	image, program, err := images.PlatformAndProgram(ctx, f.target, f.guest, o)
	setImage(spec, image, program)
	return err
}

func (f *imageFlags) options(log io.Writer) images.Options {
	return images.Options{Dir: f.dir, Cache: f.cache, Kernel: f.kernel, Modules: f.modules, Log: log, Progress: os.Stderr}
}

const noGuest = "none"

// alone checks the flags of a run without a guest program.
func (f *imageFlags) alone(ready string) error {
	switch {
	case f.kernel == "":
		return errors.New("-guest none needs -kernel FILE, the file that QEMU boots")
	case ready == "":
		return errors.New("-guest none needs -ready EXPRESSION, because no guest program reports that it is ready")
	case f.modules != "":
		return errors.New("-modules has no effect with -guest none, because the machine boots without an initramfs")
	case f.cache != "":
		return errors.New("-cache has no effect with -guest none, because run builds nothing")
	}
	return nil
}

const buildUsage = `guesthouse build [flags]

Fetches a kernel and builds an initramfs, unless the cache holds them, and prints their
paths as "kernel FILE" and "initramfs FILE". With -target all, build does this for every
target and starts each line with the name of the target.`

func buildCommand(ctx context.Context, args []string, std stdio) error {
	flags := flag.NewFlagSet("build", flag.ContinueOnError)
	var f imageFlags
	f.register(flags)
	flags.Lookup("target").Usage += ", or all"
	if err := parseFlags(flags, args, std, buildUsage); err != nil {
		return err
	}
	if f.guest == noGuest {
		return fmt.Errorf("build: -guest none leaves nothing to build: name a guest program (%w; see -h)", errUsage)
	}
	if f.target != "all" {
		return f.print(ctx, std, "")
	}
	if f.kernel != "" || f.modules != "" {
		return fmt.Errorf("build: -kernel and -modules are for one target and do not work with -target all (%w; see -h)", errUsage)
	}
	for _, name := range target.Names() {
		f.target = name
		if err := f.print(ctx, std, name+" "); err != nil {
			return err
		}
	}
	return nil
}

// print builds the kernel and the initramfs and prints their paths, each line after a prefix.
func (f *imageFlags) print(ctx context.Context, std stdio, prefix string) error {
	image, err := f.build(ctx, std.err)
	if err == nil {
		_, err = fmt.Fprintf(std.out, "%[1]skernel %[2]s\n%[1]sinitramfs %[3]s\n", prefix, image.Kernel, image.Initramfs)
	}
	return err
}

const targetsUsage = `guesthouse targets

Lists the targets: for each, QEMU's machine and processor, QEMU's program, and the Debian
packages of QEMU and of the kernel. A second table lists the boards, which run other
systems than Linux: their network card, and how QEMU loads their image.`

func targetsCommand(_ context.Context, args []string, std stdio) error {
	flags := flag.NewFlagSet("targets", flag.ContinueOnError)
	if err := parseFlags(flags, args, std, targetsUsage); err != nil {
		return err
	}
	w := tabwriter.NewWriter(std.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "TARGET\tMACHINE\tCPU\tQEMU\tQEMU PACKAGE\tKERNEL PACKAGE")
	for _, t := range target.All() {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", t.Name, t.Machine, t.CPU, t.QEMU, t.QEMUPackage, t.KernelPackage)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if _, err := fmt.Fprintln(std.out); err != nil {
		return err
	}
	return listBoards(std.out)
}
