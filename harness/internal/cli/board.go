package cli

import (
	"flag"
	"fmt"
	"io"
	"text/tabwriter"

	"guesthouse.example/harness"
	"guesthouse.example/internal/board"
)

// boardImage gives a Spec with a board its image, the one argument of run. It refuses flags that are for
// machines of Linux.
func boardImage(flags *flag.FlagSet, spec *harness.Spec) error {
	if flags.NArg() != 1 {
		return fmt.Errorf("run: -board needs one IMAGE, and got %d (%w; see -h)", flags.NArg(), errUsage)
	}
	spec.Kernel = flags.Arg(0)
	linux := map[string]bool{"target": true, "guest": true, "kernel": true, "modules": true, "cache": true, "share": true, "spec": true}
	var err error
	flags.Visit(func(f *flag.Flag) {
		if linux[f.Name] {
			err = fmt.Errorf("run: -%s has no effect together with -board (%w; see -h)", f.Name, errUsage)
		}
	})
	return err
}

// listBoards prints the table of the boards.
func listBoards(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "BOARD\tMACHINE\tCPU\tQEMU\tQEMU PACKAGE\tNETWORK CARD\tIMAGE")
	for _, b := range board.All() {
		hardware, err := b.Hardware()
		if err != nil {
			return err
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", b.Name, b.Machine, b.CPU, hardware.QEMU, hardware.QEMUPackage, b.Card, b.Load)
	}
	return t.Flush()
}
