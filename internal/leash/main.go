// Leash runs a command and leaves none of its processes behind. It is for the recipes of a Makefile:
// when make dies, even by kill -9, every process that the recipe started ends too.
//
//	leash [-parent PID] COMMAND [ARGUMENT…]
//
// Leash ends the command's processes when the command ends, when leash gets SIGTERM or SIGHUP, and
// when its parent dies. It interrupts them as Ctrl-C does and kills those that still run after 10
// seconds, or at once if it gets a second signal. The command shares the terminal and the process
// group of leash, so that job control works.
//
// The exit status is the command's, or 128 plus the number of the signal that ended the command. It
// is 1 if the command does not start and 2 for a wrong command line.
package main

import (
	"flag"
	"fmt"
	"os"
)

const usage = `usage: leash [-parent PID] COMMAND [ARGUMENT...]

Runs a command and leaves none of its processes behind.

`

func main() {
	flag.CommandLine.Init("leash", flag.ExitOnError) // which exits with status 2
	parent := flag.Int("parent", os.Getppid(), "the `process` whose death ends the command: $$PPID in a recipe")
	flag.Usage = func() {
		fmt.Fprint(flag.CommandLine.Output(), usage)
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() == 0 {
		fmt.Fprintln(os.Stderr, "leash: a command is missing (see -h)")
		os.Exit(2)
	}
	status, err := run(*parent, flag.Args(), os.Stdin, os.Stderr)
	if err != nil {
		fmt.Fprintln(os.Stderr, "leash:", err)
		os.Exit(1)
	}
	os.Exit(status)
}
