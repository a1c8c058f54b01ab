package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/term"
	"mvdan.cc/sh/v3/syntax"

	"guesthouse.example/harness"
)

const runUsage = `guesthouse run [flags]

Boots a machine and gives its serial console. On a terminal every key goes to the
guest, and Ctrl-A x ends the machine. Otherwise each line of standard input is
typed to the guest once it is ready, and at its end the guest powers off.`

func runCommand(ctx context.Context, args []string, std stdio) error {
	flags := flag.NewFlagSet("run", flag.ContinueOnError)
	var image imageFlags
	var spec harness.Spec
	var accel, specFile string
	var dryRun bool
	image.register(flags)
	flags.StringVar(&specFile, "spec", "", "boot what this `file` says, the spec.json of a record, instead of building; other flags but -dir and -n do not apply")
	flags.BoolVar(&dryRun, "n", false, "print the QEMU command and stop")
	flags.IntVar(&spec.Memory, "memory", 0, "the machine's `size` in MiB (default 256)")
	flags.Func("port", "a guest `port` to reach from the host, as udp/4242; may be repeated (default udp/4242 and tcp/4242)",
		appendTo(&spec.Ports))
	flags.Func("append", "`words` to add to the kernel command line, as guesthouse.ip=dhcp; may be repeated", appendTo(&spec.Cmdline))
	flags.Func("qemu-arg", "an `argument` to add to QEMU's command line; may be repeated", appendTo(&spec.QEMUArgs))
	flags.StringVar(&spec.Ready, "ready", "", "the regular `expression` on the console that means ready (default what guest.Main prints)")
	flags.StringVar(&accel, "accel", "", "`tcg` (the default) or kvm")
	flags.StringVar(&spec.Dir, "dir", "", "the record `directory` (default a temporary one, kept if the run fails)")
	if err := parse(flags, args, std, runUsage); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("run: unexpected argument %q (%w; -h explains)", flags.Arg(0), errUsage)
	}
	spec.Accel = harness.Accel(accel)

	if specFile != "" {
		if err := onlyFlags(flags, "spec", "dir", "n"); err != nil {
			return err
		}
		saved, err := harness.ReadSpec(specFile)
		if err != nil {
			return err
		}
		saved.Dir = spec.Dir
		spec = saved
	} else {
		if len(spec.Ports) == 0 {
			spec.Ports = []string{"udp/4242", "tcp/4242"}
		}
		built, err := image.build(ctx, std.err)
		if err != nil {
			return err
		}
		spec.Target, spec.Kernel, spec.Initramfs = image.target, built.Kernel, built.Initramfs
	}
	if dryRun {
		return printCommand(spec, std.out)
	}

	terminal, isFile := std.out.(*os.File)
	interactive := isFile && term.IsTerminal(int(std.in.Fd())) && term.IsTerminal(int(terminal.Fd()))
	m, err := harness.Start(ctx, spec)
	if err != nil {
		return err
	}
	defer m.Close()
	if interactive {
		return attach(ctx, m, std.in, terminal, std.err)
	}
	return converse(ctx, m, std)
}

func appendTo(list *[]string) func(string) error {
	return func(s string) error {
		*list = append(*list, s)
		return nil
	}
}

// onlyFlags refuses flags that would be ignored without a word.
func onlyFlags(flags *flag.FlagSet, allowed ...string) (err error) {
	flags.Visit(func(f *flag.Flag) {
		for _, name := range allowed {
			if f.Name == name {
				return
			}
		}
		err = fmt.Errorf("run: -%s has no effect together with -spec (%w)", f.Name, errUsage)
	})
	return err
}

// printCommand prints the QEMU command so that a shell can run it.
func printCommand(spec harness.Spec, out io.Writer) error {
	args, err := spec.Command()
	if err != nil {
		return err
	}
	for i, arg := range args {
		if args[i], err = syntax.Quote(arg, syntax.LangPOSIX); err != nil {
			return fmt.Errorf("run -n: argument %q: %w", arg, err)
		}
	}
	fmt.Fprintln(out, strings.Join(args, " "))
	return nil
}

// readyLine says what runs and where it is reached.
func readyLine(m *harness.Machine, end string) string {
	var b strings.Builder
	res := m.Result()
	fmt.Fprintf(&b, "guesthouse: %s ready in %.1f s (%s)", res.Target, res.ReadySeconds, res.Accel)
	for _, p := range m.Ports() {
		fmt.Fprintf(&b, "; %s 127.0.0.1:%d -> %d", p.Network, p.Host, p.Guest)
	}
	return b.String() + "; " + end
}

const powerOffWithin = 30 * time.Second

// converse prints the console, types each line of standard input once the
// guest is ready, and powers the guest off at its end.
func converse(ctx context.Context, m *harness.Machine, std stdio) error {
	shown := make(chan error, 1)
	go func() { shown <- m.Console().Follow(context.Background(), std.out) }()
	// Whatever happens, the console is shown to its last byte.
	finish := func(err error) error {
		m.Close()
		if showErr := <-shown; err == nil {
			err = showErr
		}
		return err
	}
	if err := m.WaitReady(ctx); err != nil {
		return finish(err)
	}
	fmt.Fprintln(std.err, readyLine(m, "the end of input ends"))

	typed := make(chan error, 1)
	go func() { typed <- typeLines(ctx, m, std.in) }()
	ended := make(chan error, 1)
	go func() { ended <- m.Wait(ctx) }()
	select {
	case err := <-ended: // before its input did
		return finish(err)
	case err := <-typed:
		if err != nil && !running(m) {
			err = <-ended // which explains why typing failed
		}
		if err != nil || !running(m) {
			return finish(err)
		}
	}
	ctx, cancel := context.WithTimeoutCause(ctx, powerOffWithin, fmt.Errorf("not within %v", powerOffWithin))
	defer cancel()
	return finish(m.Shutdown(ctx))
}

// typeLines types each line of in, also a last one without an end.
func typeLines(ctx context.Context, m *harness.Machine, in io.Reader) error {
	lines := bufio.NewReader(in)
	for {
		line, err := lines.ReadString('\n')
		if line != "" {
			if err := m.Console().Send(ctx, strings.TrimRight(line, "\r\n")); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("standard input: %w", err)
		}
	}
}
