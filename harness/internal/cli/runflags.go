package cli

import (
	"cmp"
	"flag"
	"fmt"
	"slices"
	"strings"

	"guesthouse.example/harness"
	"guesthouse.example/internal/shellquote"
)

// addShare returns the function of a flag that adds a share.
func addShare(list *[]harness.Share) func(string) error {
	return func(text string) error {
		s, err := harness.ParseShare(text)
		*list = append(*list, s)
		return err
	}
}

func appendTo(list *[]string) func(string) error {
	return func(s string) error {
		*list = append(*list, s)
		return nil
	}
}

// onlyFlags returns an error if a flag other than the allowed ones is set.
func onlyFlags(flags *flag.FlagSet, allowed ...string) error {
	var others []string
	flags.VisitAll(func(f *flag.Flag) {
		if !slices.Contains(allowed, f.Name) {
			others = append(others, f.Name)
		}
	})
	return refuse(flags, "spec", others...)
}

// refuse returns an error if one of the flags is set, which have no effect together with another one.
func refuse(flags *flag.FlagSet, with string, names ...string) (err error) {
	flags.Visit(func(f *flag.Flag) {
		if slices.Contains(names, f.Name) {
			err = fmt.Errorf("%s: -%s has no effect together with -%s (%w; see -h)", flags.Name(), f.Name, with, errUsage)
		}
	})
	return err
}

// printCommand prints a QEMU command that boots the machine on the terminal. On standard error it
// prints what does not work in that machine.
func printCommand(spec harness.Spec, captureTo string, std stdio) error {
	if captureTo != "" {
		return fmt.Errorf("run: -capture has no effect together with -n (%w; see -h)", errUsage)
	}
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
		fmt.Fprintln(std.err, "guesthouse: note: in this command, restrict=on isolates the guest and also drops the answers from its UDP ports; -outbound internet removes it")
	}
	if len(spec.Share) > 0 {
		fmt.Fprintln(std.err, "guesthouse: note: this command mounts no directories of the host, because the harness serves them")
	}
	return nil
}
