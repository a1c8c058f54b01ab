package cli

import (
	"context"
	"flag"
	"fmt"
	"io"

	"guesthouse.example/harness"
	"guesthouse.example/images"
)

// specFlags are the flags that describe a machine, for run and for the verb boot of scenarios.
type specFlags struct {
	image imageFlags
	spec  harness.Spec
	cold  bool
}

func (f *specFlags) register(flags *flag.FlagSet) {
	f.image.register(flags)
	flags.Lookup("guest").Usage += ", or none"
	spec := &f.spec
	flags.StringVar(&spec.Initramfs, "initramfs", "", "a `file` that guesthouse build has printed, to boot in place of an image of -guest; needs -kernel FILE")
	registerHardware(flags, spec)
	flags.Func("disk", "a `file` or a size in MiB: a disk with that content, or an empty one; what the guest writes is gone at the end; may be repeated", func(text string) error {
		spec.Disks = append(spec.Disks, harness.ParseDisk(text))
		return nil
	})
	flags.Func("share", "a directory of the host for the guest, as `DIR[:PATH[:MODE]]`: PATH is where the guest has it (default DIR), MODE is ro, overlay (changes stay in the guest) or rw (default ro); may be repeated", addShare(&spec.Share))
	flags.Func("port", "a guest `port` to forward from the host, such as udp/4242; may be repeated (default: udp/4242 and tcp/4242)",
		appendTo(&spec.Ports))
	flags.Func("append", "`words` to append to the kernel command line, such as guesthouse.ip=dhcp; may be repeated", appendTo(&spec.Cmdline))
	flags.Func("qemu-arg", "an `argument` to append to QEMU's command line; may be repeated", appendTo(&spec.QEMUArgs))
	flags.StringVar((*string)(&spec.Outbound), "outbound", "", "the outbound `access` of the guest: none, host (the services on the host's loopback, at the name host) or internet (default none)")
	flags.StringVar(&spec.Ready, "ready", "", "a regular `expression`: the guest is ready when its console matches (default: the line that guest.Main prints)")
	flags.Func("crash", "a regular `expression`: a console line that starts with a match reports a crash; guesthouse already knows the crash reports of Linux, Go, Zephyr and others; may be repeated",
		appendTo(&spec.Crashes))
	flags.StringVar((*string)(&spec.Accel), "accel", "", "the `acceleration`: tcg or kvm (default: kvm if it boots the kernel, otherwise tcg; always tcg with -qemu-arg)")
	flags.BoolVar(&f.cold, "cold", false, "boot the machine, even if a saved machine of the same kind could be restored")
	flags.StringVar(&spec.Dir, "dir", "", "the `directory` for the record of the run (default: a temporary one, which is kept if the run fails)")
}

// check takes IMAGE from the arguments, and refuses what no machine can have, before the work of building.
func (f *specFlags) check(flags *flag.FlagSet) error {
	if f.spec.Board != "" || flags.NArg() > 0 {
		return boardImage(flags, &f.spec, f.image.dir)
	}
	if f.spec.Initramfs != "" {
		return refuse(flags, "initramfs", "guest", "modules", "cache")
	}
	return nil
}

// build builds what the machine boots from, unless it is a file. If builtIn is true, the guest program becomes a part of the
// initramfs, as build makes it. Otherwise the harness delivers it into a platform, which the cache restores meanwhile.
func (f *specFlags) build(ctx context.Context, name string, builtIn bool, cache *harness.TemplateCache, log io.Writer) error {
	spec := &f.spec
	if len(spec.Ports) == 0 {
		spec.Ports = []string{"udp/4242", "tcp/4242"}
	}
	if spec.Board == "" {
		spec.Target = f.image.target
	}
	if err := spec.Validate(); err != nil { // before the work of building
		return fmt.Errorf("%s: %w (%w; see -h)", name, err, errUsage)
	}
	switch {
	case spec.Board != "":
		return nil
	case spec.Initramfs != "":
		if f.image.kernel == "" || images.IsKernelName(f.image.kernel) {
			return fmt.Errorf("%s: -initramfs needs -kernel FILE, the kernel that it was built for (%w; see -h)", name, errUsage)
		}
		spec.Kernel = f.image.kernel
		return nil
	case f.image.guest != noGuest:
		return f.image.fill(ctx, spec, builtIn, cache, log)
	}
	if err := f.image.alone(spec.Ready); err != nil {
		return fmt.Errorf("%s: %w (%w; see -h)", name, err, errUsage)
	}
	spec.Kernel = f.image.kernel
	return nil
}

// relativeTo makes the relative paths of the files of a machine begin at dir.
func (f *specFlags) relativeTo(dir string) {
	in := func(path *string) {
		if *path != "" {
			*path = absoluteIn(dir, *path)
		}
	}
	if f.image.kernel != "" && !images.IsKernelName(f.image.kernel) {
		in(&f.image.kernel)
	}
	in(&f.image.modules)
	in(&f.spec.Kernel)
	in(&f.spec.Initramfs)
	in(&f.spec.Dir)
	for i := range f.spec.Loaders {
		in(&f.spec.Loaders[i].File)
	}
	for i := range f.spec.Disks {
		in(&f.spec.Disks[i].File)
	}
	for i := range f.spec.Share {
		in(&f.spec.Share[i].Host)
	}
}
