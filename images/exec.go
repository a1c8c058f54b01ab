package images

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"guesthouse.example/internal/printable"
	"guesthouse.example/internal/tied"
)

// A command is a program to run to its end.
type command struct {
	dir    string
	env    []string
	stdout io.Writer // if nil, run keeps the standard output together with the standard error
	path   string
	args   []string
}

// A commandError is the failure of a program, with the last lines of its output.
type commandError struct {
	name  string
	words string
	err   error
}

func (e *commandError) Error() string {
	if e.words == "" {
		return e.name + ": " + e.err.Error()
	}
	return fmt.Sprintf("%s: %v:\n%s", e.name, e.err, e.words)
}

func (e *commandError) Unwrap() error { return e.err }

// run runs a program and returns the last lines of its output. When ctx ends, run kills the program
// and all programs that it has started. The same happens when this process dies.
func run(ctx context.Context, c command) (words string, err error) {
	if err := ctx.Err(); err != nil {
		return "", context.Cause(ctx)
	}
	cmd := exec.CommandContext(ctx, c.path, c.args...)
	cmd.Dir, cmd.Env = c.dir, c.env
	said := new(lastWords)
	cmd.Stdout, cmd.Stderr = c.stdout, said
	if c.stdout == nil {
		cmd.Stdout = said
	}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 2 * time.Second // if an orphan of the program holds its output open

	ended, err := tied.StartGroup(cmd)
	if err == nil {
		err = <-ended
	}
	if err == nil {
		return said.String(), nil
	}
	if ctx.Err() != nil {
		return said.String(), context.Cause(ctx)
	}
	return said.String(), &commandError{name: c.path[strings.LastIndexByte(c.path, '/')+1:], words: said.String(), err: err}
}

// A lastWords keeps only the end of a program's output, because a failing program names the cause
// there.
type lastWords struct{ buf []byte }

const (
	maxWords = 16 << 10
	maxLines = 30
)

func (w *lastWords) Write(p []byte) (int, error) {
	w.buf = append(w.buf, p...)
	if n := len(w.buf); n > 2*maxWords {
		w.buf = append(w.buf[:0], w.buf[n-maxWords:]...)
	}
	return len(p), nil
}

// String returns the last lines, indented.
func (w *lastWords) String() string {
	text := string(bytes.TrimSpace(w.buf))
	if text == "" {
		return ""
	}
	lines := strings.Split(text, "\n")
	if n := len(lines); n > maxLines {
		lines = append([]string{"..."}, lines[n-maxLines:]...)
	}
	return "\t" + printable.Text(strings.Join(lines, "\n\t"))
}
