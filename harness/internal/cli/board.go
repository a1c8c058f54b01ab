package cli

import (
	"cmp"
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"

	"guesthouse.example/harness"
	"guesthouse.example/internal/board"
	"guesthouse.example/internal/shellquote"
	"guesthouse.example/internal/westbuild"
)

// registerHardware registers the flags that describe the machine's hardware.
func registerHardware(flags *flag.FlagSet, spec *harness.Spec) {
	flags.StringVar(&spec.Board, "board", "", "the `board` of IMAGE, one of those that guesthouse targets lists, such as zephyr/qemu_x86")
	flags.StringVar(&spec.Machine, "machine", "", "the `value` of QEMU's -machine, in place of the target's or the board's")
	flags.StringVar(&spec.CPU, "cpu", "", "the `value` of QEMU's -cpu, in place of the target's or the board's")
	flags.IntVar(&spec.Memory, "memory", 0, "the machine's memory `size` in MiB (default 256, or the board's)")
	flags.IntVar(&spec.CPUs, "cpus", 0, "the `number` of the machine's processors (default 1, or the board's)")
	flags.Func("nic", "a network card in place of the target's or the board's, as `MODEL[,bus=B][,slot=S][,mac=M]`, such as e1000,slot=3; may be repeated, for the next network", func(text string) error {
		nic, err := parseNIC(text)
		spec.NICs = append(spec.NICs, nic)
		return err
	})
	flags.Func("loader", "a further file for the machine's memory, as `FILE[@ADDRESS]`; an ELF file has addresses of its own; may be repeated", func(text string) error {
		spec.Loaders = append(spec.Loaders, parseLoader(text))
		return nil
	})
}

// parseNIC parses the value of -nic.
func parseNIC(text string) (n harness.NIC, err error) {
	n.Model, text, _ = strings.Cut(text, ",")
	for text != "" {
		var property string
		property, text, _ = strings.Cut(text, ",")
		name, value, _ := strings.Cut(property, "=")
		switch name {
		case "bus":
			n.Bus = value
		case "slot":
			n.Slot = value
		case "mac":
			n.MAC = value
		default:
			return n, fmt.Errorf("unknown property %q: write bus=, slot= or mac=", property)
		}
	}
	return n, nil
}

// parseLoader parses the value of -loader. A file's name may have an @.
func parseLoader(text string) harness.Loader {
	if at := strings.LastIndex(text, "@"); at >= 0 {
		if addr, err := strconv.ParseUint(text[at+1:], 0, 64); err == nil {
			return harness.Loader{File: text[:at], Addr: addr}
		}
	}
	return harness.Loader{File: text}
}

// boardImage gives a Spec its image, the one argument of run, and what the image's build directory says unless a
// flag says otherwise. It refuses flags that are for machines of Linux. A relative path of the image begins at dir.
func boardImage(flags *flag.FlagSet, spec *harness.Spec, dir string) error {
	if flags.NArg() != 1 {
		return fmt.Errorf("%s: -board needs one IMAGE, and got %d (%w; see -h)", flags.Name(), flags.NArg(), errUsage)
	}
	spec.Kernel = flags.Arg(0)
	if dir != "" {
		spec.Kernel = absoluteIn(dir, spec.Kernel)
	}
	if info, err := os.Stat(spec.Kernel); err == nil && info.IsDir() {
		built, err := harness.WestBuild(spec.Kernel)
		if err != nil {
			return err
		}
		spec.Kernel, spec.Board, spec.Machine, spec.CPU = built.Kernel, cmp.Or(spec.Board, built.Board), cmp.Or(spec.Machine, built.Machine), cmp.Or(spec.CPU, built.CPU)
		spec.Memory, spec.CPUs = cmp.Or(spec.Memory, built.Memory), cmp.Or(spec.CPUs, built.CPUs)
		spec.Loaders = append(built.Loaders, spec.Loaders...)
	}
	if spec.Board == "" {
		return fmt.Errorf("%s: image %s: name its board with -board, or give the build directory of west (%w; see -h)", flags.Name(), spec.Kernel, errUsage)
	}
	return refuse(flags, "board", "target", "guest", "kernel", "modules", "cache", "initramfs", "share", "spec")
}

// noteWestRun prints the command that "west build -t run" starts for a build directory, if IMAGE is one.
func noteWestRun(image string, w io.Writer) {
	b, err := westbuild.Read(image)
	if err != nil || b.Run == nil {
		return // a file, or a build without such a command
	}
	words := make([]string, len(b.Run))
	for i, word := range b.Run {
		words[i] = shellquote.Word(word)
	}
	fmt.Fprintf(w, "guesthouse: note: in %s, west build -t run starts: %s\n", shellquote.Word(b.Dir), strings.Join(words, " "))
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
		card := b.Card
		if len(b.Slots) > 0 {
			card += " in slot " + strings.Join(b.Slots, " or ")
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", b.Name, b.Machine, b.CPU, hardware.QEMU, hardware.QEMUPackage, card, b.Load)
	}
	return t.Flush()
}
