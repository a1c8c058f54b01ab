package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/term"

	"guesthouse.example/harness"
	"guesthouse.example/internal/printable"
	"guesthouse.example/internal/shellquote"
)

const runUsage = `guesthouse run [flags]

Boots a machine and gives its serial console. On a terminal every key goes to the
guest, and Ctrl-A x ends the machine. Otherwise each line of standard input is
typed to the guest once it is ready, and at its end the guest powers off; what would act
on a terminal is then shown as text, an escape character as \x1b.
When the guest's program ends by itself, run exits with its status, or with 128
and the number of the signal that ended it.

With -guest none it boots what QEMU's -kernel takes, an RTOS for example, without
an initramfs: give -kernel FILE and -ready EXPRESSION. Such a guest is ended, not
powered off.`

func runCommand(ctx context.Context, args []string, std stdio) error {
	flags := flag.NewFlagSet("run", flag.ContinueOnError)
	var image imageFlags
	var spec harness.Spec
	var accel, specFile string
	var dryRun bool
	image.register(flags)
	flags.StringVar(&specFile, "spec", "", "boot what this `file` says, the spec.json of a record or a bundle, instead of building; of the other flags only -append, -qemu-arg, -outbound, -cold, -dir, -cache and -n apply")
	flags.BoolVar(&dryRun, "n", false, "print a QEMU command that boots the machine on the terminal, and stop")
	flags.IntVar(&spec.Memory, "memory", 0, "the machine's `size` in MiB (default 256)")
	flags.Func("port", "a guest `port` to reach from the host, as udp/4242; may be repeated (default udp/4242 and tcp/4242)",
		appendTo(&spec.Ports))
	flags.Func("append", "`words` to add to the kernel command line, as guesthouse.ip=dhcp; may be repeated", appendTo(&spec.Cmdline))
	flags.Func("qemu-arg", "an `argument` to add to QEMU's command line; may be repeated", appendTo(&spec.QEMUArgs))
	flags.StringVar((*string)(&spec.Outbound), "outbound", "", "`what` the guest can reach by itself: none, host (services on the host's loopback, by the name host) or internet (default none)")
	flags.StringVar(&spec.Ready, "ready", "", "the regular `expression` on the console that means ready (default what guest.Main prints)")
	flags.Func("crash", "a regular `expression` that begins a line of the console when the guest has crashed, besides what is known of Linux, Go, Zephyr and others; may be repeated",
		appendTo(&spec.Crashes))
	flags.StringVar(&accel, "accel", "", "`tcg` or kvm (default kvm where it boots the kernel, and tcg elsewhere or with -qemu-arg)")
	cold := flags.Bool("cold", false, "boot, also where a machine of the same kind could be restored from a template")
	flags.StringVar(&spec.Dir, "dir", "", "the record `directory` (default a temporary one, kept if the run fails)")
	if err := parse(flags, args, std, runUsage); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("run: unexpected argument %q (%w; -h explains)", flags.Arg(0), errUsage)
	}
	spec.Accel = harness.Accel(accel)

	if specFile != "" {
		if err := onlyFlags(flags, "spec", "append", "qemu-arg", "outbound", "cold", "dir", "cache", "n"); err != nil {
			return err
		}
		saved, err := image.replay(ctx, specFile, std.err)
		if err != nil {
			return err
		}
		saved.Cmdline = append(saved.Cmdline, spec.Cmdline...)
		saved.QEMUArgs = append(saved.QEMUArgs, spec.QEMUArgs...)
		saved.Outbound = cmp.Or(spec.Outbound, saved.Outbound)
		saved.Dir = spec.Dir
		spec = saved
	} else {
		if len(spec.Ports) == 0 {
			spec.Ports = []string{"udp/4242", "tcp/4242"}
		}
		spec.Target = image.target
		if err := spec.Validate(); err != nil { // before the work of building
			return fmt.Errorf("run: %w (%w; -h explains)", err, errUsage)
		}
		if image.guest == noGuest {
			if err := image.alone(spec.Ready); err != nil {
				return fmt.Errorf("run: %w (%w; -h explains)", err, errUsage)
			}
			spec.Kernel = image.kernel
		} else {
			built, err := image.build(ctx, std.err)
			if err != nil {
				return err
			}
			spec.Kernel, spec.Initramfs, spec.Origin = built.Kernel, built.Initramfs, origin(built)
		}
	}
	if dryRun {
		return printCommand(spec, std)
	}
	switch {
	case *cold:
		spec.From = harness.Cold
	case spec.From == nil:
		spec.From = new(harness.TemplateCache) // the user's
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

// printCommand prints a QEMU command that boots the machine on the terminal, and on the standard
// error what the machine lacks that it boots.
func printCommand(spec harness.Spec, std stdio) error {
	args, err := spec.Command()
	if err != nil {
		return err
	}
	for i, arg := range args {
		args[i] = shellquote.Word(arg)
	}
	if _, err := fmt.Fprintln(std.out, strings.Join(args, " ")); err != nil {
		return err
	}
	isUDP := func(port string) bool { return strings.HasPrefix(port, "udp/") }
	if cmp.Or(spec.Outbound, harness.OutboundNone) == harness.OutboundNone && slices.ContainsFunc(spec.Ports, isUDP) {
		fmt.Fprintln(std.err, "guesthouse: QEMU alone keeps the guest from reaching anything (restrict=on) only together with the answers of its UDP ports; -outbound internet keeps both")
	}
	return nil
}

// readyLine says what runs and where it is reached.
func readyLine(m *harness.Machine, end string) string {
	var b strings.Builder
	res := m.Result()
	how := string(res.Boot)
	if res.Why != "" {
		how += ": " + res.Why
	}
	fmt.Fprintf(&b, "guesthouse: %s ready in %.2f s (%s, %s: %s)", res.Target, res.ReadySeconds, how, res.Accel, res.AccelWhy)
	for _, p := range m.Ports() {
		fmt.Fprintf(&b, "; %s 127.0.0.1:%d -> %d", p.Network, p.Host, p.Guest)
	}
	return b.String() + "; " + end
}

const powerOffWithin = 30 * time.Second

// converse prints the console, types each line of standard input when the
// guest asks for it, and powers the guest off at its end, or ends it if it is none of
// package guest.
func converse(ctx context.Context, m *harness.Machine, std stdio) error {
	// Whoever reads it, a terminal or a log, is no terminal of the guest's.
	safe := printable.NewWriter(std.out)
	screen := newScreen(safe, std.err, false)
	ctx, giveUp := context.WithCancelCause(ctx)
	defer giveUp(nil)
	shown := make(chan error, 1)
	go func() {
		err := m.Console().Follow(context.Background(), screen)
		if err == nil {
			err = safe.Flush()
		}
		if err != nil {
			err = fmt.Errorf("standard output: %w", err)
			giveUp(err) // nobody would see the rest
		}
		shown <- err
	}()
	// Whatever happens, the console is shown to its last byte.
	finish := func(err error) error {
		broken := m.Close()
		if showErr := <-shown; showErr != nil {
			return showErr // the other follows from it
		}
		if err == nil {
			err = broken
		}
		return err
	}
	if err := m.WaitReady(ctx); err != nil {
		return finish(err)
	}
	if err := screen.notice(readyLine(m, "the end of input ends")); err != nil {
		return finish(fmt.Errorf("standard error: %w", err))
	}

	// What waits for the guest or for input ends with the machine.
	alive, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	ended := make(chan error, 1)
	go func() {
		err := m.Wait(ctx)
		ended <- err
		stop(errors.New("the machine has ended"))
	}()
	typed := make(chan error, 1)
	go func() { typed <- typeLines(alive, m, screen, std.in) }()
	var stillBusy error
	select {
	case err := <-ended: // before its input did
		return finish(err)
	case err := <-typed:
		if alive.Err() != nil { // which explains why typing failed
			return finish(<-ended)
		}
		if err != nil && !errors.Is(err, errBusy) {
			return finish(err)
		}
		stillBusy = err
	}
	if m.Spec().Initramfs == "" { // it has no shell of ours to power it off
		return finish(stillBusy)
	}
	off, cancel := m.Within(ctx, powerOffWithin)
	defer cancel()
	if err := m.Shutdown(off); err != nil {
		return finish(err)
	}
	return finish(stillBusy)
}

var errBusy = fmt.Errorf("the guest's last command had not ended after %v of silence and was interrupted", busy)

// typeLines types each line of in, also a last one without an end, as soon as
// the guest asks for it. It returns errBusy when the guest does not ask again after the last.
func typeLines(ctx context.Context, m *harness.Machine, screen *screen, in io.Reader) error {
	lines := bufio.NewReader(in)
	after := -1
	for {
		line, err := lines.ReadString('\n')
		asked := screen.awaitPrompt(ctx, after)
		if line != "" {
			line = strings.TrimRight(line, "\r\n")
			if len(line) > longestLine {
				return fmt.Errorf("standard input: a line of %d bytes: a terminal takes at most %d", len(line), longestLine)
			}
			after = screen.finished()
			if err := m.Console().Send(ctx, line); err != nil {
				return err
			}
			asked = false
		}
		switch {
		case errors.Is(err, io.EOF):
			if asked || screen.awaitPrompt(ctx, after) || !screen.hasPrompt() {
				return nil
			}
			return errBusy
		case err != nil:
			return fmt.Errorf("standard input: %w", err)
		}
	}
}

const longestLine = 4095 // bytes, of a terminal that edits lines
