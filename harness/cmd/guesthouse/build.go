package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"text/tabwriter"

	"guesthouse.example/images"
	"guesthouse.example/internal/target"
)

// imageFlags are the flags that say what a machine boots from.
type imageFlags struct {
	target, guest, kernel, modules, cache string
}

func (f *imageFlags) register(flags *flag.FlagSet) {
	flags.StringVar(&f.target, "target", "x86_64", "the emulated `machine`: guesthouse targets lists them")
	flags.StringVar(&f.guest, "guest", "guesthouse.example/guest/cmd/uinit", "the guest program: the `package` of a main function that calls guest.Main")
	flags.StringVar(&f.kernel, "kernel", "", "a kernel `file` of your own instead of Debian's")
	flags.StringVar(&f.modules, "modules", "", "the `directory` of your kernel's modules, as /lib/modules/RELEASE")
	flags.StringVar(&f.cache, "cache", "", "the `directory` that keeps kernels and images (default guesthouse in the user's cache directory)")
}

func (f *imageFlags) build(ctx context.Context, log io.Writer) (images.Image, error) {
	return images.Build(ctx, f.target, f.guest, images.Options{
		Cache: f.cache, Kernel: f.kernel, Modules: f.modules, Log: log, Progress: os.Stderr,
	})
}

func buildCommand(ctx context.Context, args []string, std stdio) error {
	flags := flag.NewFlagSet("build", flag.ContinueOnError)
	var f imageFlags
	f.register(flags)
	if err := parse(flags, args, std, "guesthouse build [flags]"); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("build: unexpected argument %q (%w; -h explains)", flags.Arg(0), errUsage)
	}
	image, err := f.build(ctx, std.err)
	if err != nil {
		return err
	}
	fmt.Fprintf(std.out, "kernel %s\ninitramfs %s\n", image.Kernel, image.Initramfs)
	return nil
}

func targetsCommand(_ context.Context, args []string, std stdio) error {
	flags := flag.NewFlagSet("targets", flag.ContinueOnError)
	if err := parse(flags, args, std, "guesthouse targets"); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("targets: unexpected argument %q (%w; -h explains)", flags.Arg(0), errUsage)
	}
	w := tabwriter.NewWriter(std.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "TARGET\tMACHINE\tCPU\tQEMU\tQEMU PACKAGE\tKERNEL PACKAGE")
	for _, t := range target.All() {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", t.Name, t.Machine, t.CPU, t.QEMU, t.QEMUPackage, t.KernelPackage)
	}
	return w.Flush()
}
