package scenario

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"

	"guesthouse.example/harness"
)

var guestVerbs = []verb{
	{
		name: "exec", args: "[-m NAME] [-within TIME] [-status N] [-stdin FILE] PROGRAM [ARGUMENT...]", summary: "run a program in the guest",
		detail:  []string{"Its output is stdout and stderr. Its exit status must be N, or 0. ! exec is for a program that fails in any way."},
		minArgs: 1, maxArgs: -1, setup: func(flags *flag.FlagSet) func(c *call) error {
			status := flags.Int("status", 0, "the exit `status` of the program")
			stdin := flags.String("stdin", "", "the `file` of its standard input")
			return func(c *call) error { return c.exec(*status, *stdin) }
		},
	},
	{
		name: "copy-in", args: "[-m NAME] [-within TIME] FILE GUESTFILE", summary: "copy a file or a directory into the guest",
		minArgs: 2, maxArgs: 2, setup: noFlags(func(c *call) error { return c.m.CopyIn(c.ctx, c.path(c.args[0]), c.args[1]) }),
	},
	{
		name: "copy-out", args: "[-m NAME] [-within TIME] GUESTFILE FILE", summary: "copy a file or a directory of the guest to $WORK",
		minArgs: 2, maxArgs: 2, setup: noFlags(func(c *call) error { return c.m.CopyOut(c.ctx, c.args[0], c.path(c.args[1])) }),
	},
}

func (c *call) exec(status int, stdin string) error {
	cmd := c.m.Command(c.ctx, c.args[0], c.args[1:]...)
	if stdin != "" {
		f, err := os.Open(c.path(stdin))
		if err != nil {
			return err
		}
		defer f.Close()
		cmd.Stdin = f
	}
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	c.stdout, c.stderr = out.String(), errOut.String()
	exit := (*harness.CommandError)(nil)
	switch {
	case status == 0:
		return err
	case err == nil:
		return fmt.Errorf("exit status 0, and -status %d expects another one", status)
	case errors.As(err, &exit) && exit.Code() == status:
		return nil
	}
	return fmt.Errorf("%w, and -status %d expects another one", err, status)
}
