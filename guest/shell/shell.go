// Package shell is the serial console's command line, in the manner of Zephyr's
// shell: a few commands that show what the machine does, the log between them,
// and a way into a real shell.
//
// Lines are edited by the terminal itself (backspace, Ctrl-U, Ctrl-W), so that
// what appears on the console is plain text.
package shell

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Prompt is Zephyr's.
const Prompt = "uart:~$ "

// A Shell reads commands from a terminal. It is also the way for others to
// write to that terminal: Write keeps whole lines whole and the prompt below
// them.
type Shell struct {
	in  *os.File
	out io.Writer

	mu       sync.Mutex
	prompted bool // the prompt stands on the last line
}

// New returns a shell on a terminal's two directions.
func New(in *os.File, out io.Writer) *Shell { return &Shell{in: in, out: out} }

// Write writes p, which should end a line, and restores the prompt below it.
func (s *Shell) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.prompted {
		_, err := fmt.Fprintf(s.out, "\n%s%s", p, Prompt)
		return len(p), err
	}
	return s.out.Write(p)
}

// prompt writes the prompt below whole lines, with one write: nobody can write between them.
func (s *Shell) prompt(above string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	io.WriteString(s.out, above+Prompt)
	s.prompted = true
}

func (s *Shell) unprompt() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.prompted = false
}

// errPowerOff is what the command poweroff returns.
var errPowerOff = errors.New("power off")

// Run writes a greeting, which should end a line, with the first prompt below it, calls
// prompted, and serves commands until poweroff (nil) or until the terminal is gone. Whoever
// types a line after the prompt finds its answer below it.
func (s *Shell) Run(greeting string, prompted func()) error {
	// Ctrl-C is for the program in the foreground. At the prompt the
	// terminal itself drops the line; a new prompt shows it.
	interrupts := make(chan os.Signal, 1)
	signal.Notify(interrupts, unix.SIGINT, unix.SIGQUIT)
	defer func() {
		signal.Stop(interrupts)
		close(interrupts)
	}()
	go func() {
		for range interrupts {
			s.mu.Lock()
			if s.prompted {
				io.WriteString(s.out, "\n"+Prompt)
			}
			s.mu.Unlock()
		}
	}()
	lines := bufio.NewReader(s.in)
	s.prompt(greeting)
	prompted()
	for ; ; s.prompt("") {
		line, err := lines.ReadString('\n')
		s.unprompt()
		switch {
		case errors.Is(err, io.EOF): // Ctrl-D
			fmt.Fprintln(s)
		case err != nil:
			return fmt.Errorf("console: %w", err)
		}
		if err := s.execute(strings.TrimSpace(line)); errors.Is(err, errPowerOff) {
			return nil
		} else if err != nil {
			fmt.Fprintln(s, err)
		}
	}
}

// execute runs the command that the line begins with.
func (s *Shell) execute(line string) error {
	if line == "" {
		return nil
	}
	for _, c := range commands() {
		rest, ok := cutWords(line, c.name)
		if !ok {
			continue
		}
		err := c.run(s, rest)
		if err != nil && !errors.Is(err, errPowerOff) {
			err = fmt.Errorf("%s: %w", c.name, err)
		}
		return err
	}
	return fmt.Errorf("%s: command not found; help lists the commands", line)
}

// cutWords returns what follows words at the beginning of a line.
func cutWords(line, words string) (rest string, ok bool) {
	rest = line
	for word := range strings.FieldsSeq(words) {
		rest, ok = strings.CutPrefix(strings.TrimLeft(rest, " \t"), word)
		if !ok || rest != "" && rest[0] != ' ' && rest[0] != '\t' {
			return "", false
		}
	}
	return strings.TrimSpace(rest), true
}

// foreground runs a program on the terminal and gives the terminal back as it
// was.
func (s *Shell) foreground(name string, args ...string) error {
	before, err := unix.IoctlGetTermios(int(s.in.Fd()), unix.TCGETS)
	if err != nil {
		return fmt.Errorf("the console is no terminal: %w", err)
	}
	defer unix.IoctlSetTermios(int(s.in.Fd()), unix.TCSETS, before)
	cmd := exec.Command(name, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = s.in, s.in, s.in
	return cmd.Run()
}
