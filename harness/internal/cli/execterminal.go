package cli

import (
	"errors"
	"io"
	"os"

	"golang.org/x/term"

	"guesthouse.example/harness"
)

// attachTerminal gives a command a terminal of the size of this one, and puts this one into raw mode, so that
// every key goes to the command. The caller calls restore when the command has ended.
func attachTerminal(cmd *harness.Cmd, std stdio) (restore func(), err error) {
	out, isFile := std.out.(*os.File)
	if !isFile || !term.IsTerminal(int(std.in.Fd())) || !term.IsTerminal(int(out.Fd())) {
		return nil, errors.New("-t: standard input and output are not a terminal")
	}
	before, err := term.MakeRaw(int(std.in.Fd()))
	if err != nil {
		return nil, err
	}
	size := terminalSize()
	cmd.Terminal, cmd.Stderr = &size, nil
	cmd.Env = append(cmd.Env, "TERM="+os.Getenv("TERM"))
	io.WriteString(out, keepTitle)
	return func() {
		io.WriteString(out, giveBackModes)
		term.Restore(int(std.in.Fd()), before)
	}, nil
}

// terminalSize returns the size of the terminal on standard output, or a usual one.
func terminalSize() harness.TerminalSize {
	columns, rows, err := term.GetSize(int(os.Stdout.Fd()))
	if err != nil {
		columns, rows = 80, 24
	}
	return harness.TerminalSize{Rows: rows, Columns: columns}
}
