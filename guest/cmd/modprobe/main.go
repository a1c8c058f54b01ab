// Modprobe loads kernel modules by their names or by aliases such as "rtnl-link-veth", each with the modules
// that it needs. The kernel calls it for what a program asks for and no loaded module provides.
//
// Usage: modprobe [-q] [-a] MODULE [NAME=VALUE …]
//
// The exit status is 1 if a module is missing or cannot be loaded. -q leaves out the message for a missing
// module, and with -a every argument is a module.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"

	"guesthouse.example/guest/internal/modules"
)

func main() {
	quiet := flag.Bool("q", false, "say nothing about a module that is missing")
	all := flag.Bool("a", false, "load every module that is named")
	flag.Parse()
	if flag.NArg() == 0 {
		fmt.Fprintln(os.Stderr, "usage: modprobe [-q] [-a] MODULE [NAME=VALUE …]")
		os.Exit(1)
	}
	names, parameters := flag.Args()[:1], strings.Join(flag.Args()[1:], " ")
	if *all {
		names, parameters = flag.Args(), ""
	}
	status := 0
	for _, name := range names {
		if err := modules.Probe(name, parameters); err != nil {
			status = 1
			if !*quiet || !errors.Is(err, modules.ErrMissing) {
				fmt.Fprintf(os.Stderr, "modprobe: %v\n", err)
			}
		}
	}
	os.Exit(status)
}
