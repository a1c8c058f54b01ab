package cli

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/term"

	"guesthouse.example/harness"
	"guesthouse.example/internal/printable"
)

const runUsage = `guesthouse run [flags] [IMAGE]

Boots a machine and connects to its serial console. On a terminal, every key goes to
the guest, and Ctrl-A x ends the machine. Without a terminal, run waits until the guest
is ready, types each line of standard input on the console, and powers the guest off at
the end of the input. It then prints control characters as text, such as \x1b for an
escape character.

If the guest's program ends by itself, run exits with the program's status, or with
128 plus the number of the signal that ended the program. If guesthouse itself fails, or
the machine crashes or is lost, run exits with 125. It exits with 0 if the guest powers
off, if it powers the guest off at the end of the input, and after Ctrl-A x.

With -board, run boots the IMAGE of another system than Linux, such as an RTOS, on a board
that guesthouse targets lists. If IMAGE is a build directory of Zephyr's tool west, run takes
from it the image, the board, and the machine for which it was built; -n then also prints the
command that west build -t run starts. At the end, run types the system's power-off command if there
is one, or ends the machine.

With -guest none, run boots a kernel FILE without an initramfs: any file that QEMU's
-kernel accepts, such as an RTOS. This needs -kernel FILE and -ready EXPRESSION. At the
end, run kills the machine, because it cannot power such a guest off.`

// runCommand gives every error the exit status of run: the program's own if it is known.
func runCommand(ctx context.Context, args []string, std stdio) error {
	err := run(ctx, args, std)
	if err == nil || errors.Is(err, flag.ErrHelp) || errors.As(err, new(statusError)) {
		return err
	}
	if exit := (*harness.ExitError)(nil); errors.As(err, &exit) {
		return statusError{err, exit.Code()}
	}
	return statusError{err, statusOwn}
}

func run(ctx context.Context, args []string, std stdio) error {
	flags := flag.NewFlagSet("run", flag.ContinueOnError)
	var machine specFlags
	var specFile string
	var dryRun bool
	var network *string
	machine.register(flags)
	flags.StringVar(&specFile, "spec", "", "boot the machine of a recorded run: a spec.json or a bundle `file`; allows no other flags than -append, -qemu-arg, -outbound, -net, -capture, -cold, -dir, -cache and -n")
	flags.BoolVar(&dryRun, "n", false, "print a QEMU command that boots the machine on the terminal, and do not run it")
	captureTo := flags.String("capture", "", captureUsage)
	flags.Func("net", "the `network`, in place of QEMU's user network: lan, or lan with faults such as lan,loss=5%,delay=20ms±5ms,seed=7; it needs the command of package lan", func(words string) error {
		network = &words
		return nil
	})
	if err := parse(flags, args, std, runUsage); err != nil {
		return err
	}
	if err := machine.check(flags); err != nil {
		return err
	}
	spec := &machine.spec

	// The user's templates. While fill compiles a program, the cache restores the platform for it.
	cache := &harness.TemplateCache{Prefetch: true}
	defer cache.Close()
	closeNetworks := func() error { return nil }
	defer func() { closeNetworks() }()
	if specFile != "" {
		if err := onlyFlags(flags, "spec", "append", "qemu-arg", "outbound", "net", "capture", "cold", "dir", "cache", "n"); err != nil {
			return err
		}
		saved, err := machine.image.replay(ctx, specFile, std.err)
		if err != nil {
			return err
		}
		saved.Cmdline = append(saved.Cmdline, spec.Cmdline...)
		saved.QEMUArgs = append(saved.QEMUArgs, spec.QEMUArgs...)
		saved.Outbound = cmp.Or(spec.Outbound, saved.Outbound)
		saved.Dir = spec.Dir
		*spec = saved
	}
	var err error
	if closeNetworks, err = makeNetworks(spec, network); err != nil {
		return err
	}
	if specFile == "" {
		// The program of a machine that boots anyway is part of the initramfs, as build makes it.
		if err := machine.build(ctx, "run", machine.cold || dryRun, cache, std.err); err != nil {
			return err
		}
	}
	if dryRun {
		err := printCommand(*spec, *captureTo, std)
		if err == nil && spec.Board != "" {
			noteWestRun(flags.Arg(0), std.err)
		}
		return err
	}
	switch {
	case machine.cold:
		spec.From = harness.Cold
	case spec.From == nil:
		spec.From = cache
	}
	cache.Prefetch = false // no second machine follows

	frames, err := openCapture(*captureTo, &std)
	if err != nil {
		return err
	}
	spec.Capture = spec.Capture || frames != nil
	terminal, isFile := std.out.(*os.File)
	interactive := isFile && term.IsTerminal(int(std.in.Fd())) && term.IsTerminal(int(terminal.Fd()))
	m, err := harness.Start(ctx, *spec)
	cache.Close() // ends a restored platform that the machine is not
	if err != nil {
		return err
	}
	defer m.Close()
	frames.start(m)
	if interactive {
		err = attach(ctx, m, std.in, terminal, std.err)
	} else {
		err = converse(ctx, m, std)
	}
	if broken := frames.finish(ctx); err == nil {
		err = broken
	}
	return withExit(withCode(err, m), m.Result().Exit)
}

// withCode adds to the error of a crash what the addresses in it are. The report of a failed boot has them.
func withCode(err error, m *harness.Machine) error {
	if !errors.Is(err, harness.ErrGuest) || errors.As(err, new(*harness.BootError)) {
		return err
	}
	code := printable.Lines(m.Report().Code)
	if len(code) == 0 {
		return err
	}
	return fmt.Errorf("%w\nby the symbols of its image:\n\t%s", err, strings.Join(code, "\n\t"))
}

// withExit adds the end of the guest's program to the error of a machine that has ended. An error of a
// crash has not got it.
func withExit(err error, exit *harness.Exit) error {
	if err == nil || !errors.Is(err, harness.ErrGuest) || errors.As(err, new(*harness.ExitError)) || exit == nil || exit.OK() {
		return err
	}
	return statusError{err, exit.Code()}
}

// crashEndsWithin bounds how long a machine has, after a crash, to report how the guest's program ended, in
// the machine's time. Init powers the machine off at once after a program's panic.
const crashEndsWithin = 2 * time.Second

// awaitEnd waits until a machine that has crashed ends, so that the status of its program is known.
func awaitEnd(ctx context.Context, m *harness.Machine) {
	if m.Console().Crash() == "" {
		return
	}
	ctx, cancel := m.Within(ctx, crashEndsWithin)
	defer cancel()
	select {
	case <-m.Done():
	case <-ctx.Done():
	}
}

const powerOffWithin = 30 * time.Second

// converse prints the console and types each line of standard input when the
// guest prompts for a command. At the end of the input it powers the guest off. It
// ends the machine instead if the guest has no program of package guest.
func converse(ctx context.Context, m *harness.Machine, std stdio) error {
	// The output goes to a log or to a terminal that the guest must not control.
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
			giveUp(err) // the rest of the output has no reader
		}
		shown <- err
	}()
	// finish prints the console to its last byte, whatever ends the run.
	finish := func(err error) error {
		awaitEnd(ctx, m)
		broken := m.Close()
		if showErr := <-shown; showErr != nil {
			return showErr // err follows from it
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

	// The end of the machine ends every wait for the guest or for input.
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
	case err := <-ended: // before the end of the input
		return finish(err)
	case err := <-typed:
		if alive.Err() != nil { // typing failed because the machine has ended
			return finish(<-ended)
		}
		if err != nil && !errors.Is(err, errBusy) {
			return finish(err)
		}
		stillBusy = err
	}
	if m.Spec().Initramfs == "" && m.Spec().Board == "" { // the guest has no shell that could power it off
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

// typeLines types each line of in as soon as the guest prompts for a command. A last line
// needs no newline. It returns errBusy if the guest does not prompt after the last line.
func typeLines(ctx context.Context, m *harness.Machine, screen *screen, in io.Reader) error {
	lines := bufio.NewReader(in)
	after := -1
	for {
		line, err := lines.ReadString('\n')
		asked := screen.awaitPrompt(ctx, after)
		if line != "" {
			line = strings.TrimRight(line, "\r\n")
			if len(line) > longestLine {
				return fmt.Errorf("standard input: a line of %d bytes: a terminal accepts at most %d", len(line), longestLine)
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

const longestLine = 4095 // bytes that a terminal in canonical mode accepts
