// Rtos tries guesthouse on the image of another system than Linux, such as Zephyr, NuttX or U-Boot, and prints a table
// of what it saw:
//
//	make rtos BOARD=zephyr/qemu_x86 ELF=build/zephyr/zephyr.elf ARGS='-ready "waits for a connection" -echo zephyr'
//
// It boots the image, restores it, runs several machines at once, types commands, runs package echotest's checks, and
// makes the system crash if -crash has a command for that. Its exit status is 0 only if every check was good.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"text/tabwriter"

	"guesthouse.example/harness"
	"guesthouse.example/host/echotest"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// profiles are the profiles of package echotest by the names that -echo takes.
var profiles = map[string]echotest.Profile{"zephyr": echotest.Zephyr, "guesthouse": echotest.Guesthouse}

// run is the whole program and returns the exit status.
func run(ctx context.Context, args []string, out, errs io.Writer) int {
	flags := flag.NewFlagSet("rtos", flag.ContinueOnError)
	flags.SetOutput(errs)
	var i image
	flags.StringVar(&i.spec.Board, "board", "", "the `board`, as guesthouse targets lists it")
	flags.StringVar(&i.spec.Kernel, "elf", "", "the image, a `file`")
	flags.StringVar(&i.spec.Ready, "ready", "", "the `expression` of a ready system (default: the board's)")
	flags.StringVar(&i.command, "command", "", "a `command` for the system's console")
	flags.StringVar(&i.answer, "answer", "", "the `expression` that the answer to -command matches")
	flags.StringVar(&i.crash, "crash", "", "a `command` that makes the system crash")
	echo := flags.String("echo", "", "the `profile` of the echo service on port 4242: zephyr or guesthouse")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	if profile, ok := profiles[*echo]; ok {
		i.echo = &profile
	}
	if i.spec.Board == "" || i.spec.Kernel == "" || flags.NArg() > 0 || (i.command == "") != (i.answer == "") || *echo != "" && i.echo == nil {
		fmt.Fprintln(errs, "rtos: give -board and -elf, -command together with -answer, and a profile that exists (see -h)")
		return 2
	}
	i.spec.Ports = []string{"udp/4242", "tcp/4242"}
	dir, err := os.MkdirTemp("", "guesthouse-rtos")
	if err != nil {
		fmt.Fprintln(errs, "rtos:", err)
		return 1
	}
	defer os.RemoveAll(dir)
	cache := &harness.TemplateCache{Dir: dir}
	defer cache.Close()
	i.spec.From = cache

	status := 0
	table := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(table, "CHECK\tSAW\t")
	for _, row := range i.check(ctx) {
		mark := ""
		if row.Err != nil {
			mark, status = "BROKEN: "+row.Err.Error(), 1
		}
		fmt.Fprintf(table, "%s\t%s\t%s\n", row.Check, row.Saw, mark)
	}
	if err := table.Flush(); err != nil {
		fmt.Fprintln(errs, "rtos:", err)
		return 1
	}
	return status
}
