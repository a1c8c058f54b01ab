// Package shell is the serial console's command line, in the manner of Zephyr's
// shell: a few commands that show what the machine does, the log between them,
// and a way into a real shell.
//
// Lines are edited by the terminal itself (backspace, Ctrl-U, Ctrl-W), so that
// what appears on the console is plain text, until somebody presses an arrow or a key like it.
package shell

import (
	"bytes"
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

// prompt is Zephyr's.
const prompt = "uart:~$ "

// A Shell reads commands from a terminal. It is also the way for others to
// write to that terminal: Write keeps whole lines whole and the prompt below
// them.
type Shell struct {
	in  *os.File
	out io.Writer

	// The terminal as programs have it, as the prompt has it, and as the editor does; nil where
	// there is none.
	programs, typing, editing *unix.Termios

	rest []byte // what was read behind a line

	mu       sync.Mutex
	prompted bool // the prompt stands on the last line
	below    bool // it may stand below the echo of a line that is to be read
	edits    bool // the editor has the line
	line     editor
}

// New returns a shell on a terminal's two directions.
func New(in *os.File, out io.Writer) *Shell { return &Shell{in: in, out: out} }

// Write writes p, which should end a line, and restores the prompt below it, unless a line
// was entered there: its answer comes next.
func (s *Shell) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.prompted || s.more() > 0 && !s.edits {
		return s.out.Write(p)
	}
	again := ""
	if s.edits {
		s.line.shown = s.line.shown[:0] // it is in what follows
		again = s.line.again()
	}
	_, err := fmt.Fprintf(s.out, "\n%s%s%s", p, prompt, again)
	s.below = true
	return len(p), err
}

// errPowerOff is what the command poweroff returns.
var errPowerOff = errors.New("power off")

// Run writes a greeting, which should end a line, with the first prompt below it, and serves
// commands until poweroff (nil) or until the terminal is gone. Whoever
// types a line after the prompt finds its answer below it.
func (s *Shell) Run(greeting string) error {
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
				io.WriteString(s.out, "\n"+prompt)
				s.below = true
			}
			s.mu.Unlock()
		}
	}()
	if err := s.openTerminal(); err != nil {
		return fmt.Errorf("console: %w", err)
	}
	defer s.set(s.programs)
	s.showPrompt(greeting)
	for ; ; s.showPrompt("") {
		line, err := s.read()
		s.unprompt()
		switch {
		case errors.Is(err, io.EOF): // Ctrl-D
			fmt.Fprintln(s)
		case err != nil:
			return fmt.Errorf("console: %w", err)
		}
		s.line.remember(line)
		if err := s.execute(strings.TrimSpace(line)); errors.Is(err, errPowerOff) {
			return nil
		} else if err != nil {
			fmt.Fprintln(s, err)
		}
	}
}

// openTerminal makes the terminal, if it is one, end a line also at the byte with which the
// sequences of the arrows and other keys begin. Up to there it edits the line itself.
func (s *Shell) openTerminal() error {
	now, err := unix.IoctlGetTermios(int(s.in.Fd()), unix.TCGETS)
	if err != nil {
		return nil
	}
	typing, editing := *now, *now
	typing.Cc[unix.VEOL] = esc
	editing.Lflag &^= unix.ICANON | unix.ECHO | unix.ISIG | unix.IEXTEN
	editing.Cc[unix.VMIN], editing.Cc[unix.VTIME] = 1, 0
	s.programs, s.typing, s.editing = now, &typing, &editing
	return s.set(s.typing)
}

// set changes the terminal, if it is one.
func (s *Shell) set(mode *unix.Termios) error {
	if mode == nil {
		return nil
	}
	return os.NewSyscallError("TCSETS", unix.IoctlSetTermios(int(s.in.Fd()), unix.TCSETS, mode))
}

// showPrompt writes the prompt below whole lines, with one write: nobody can write between them. The
// echo of a line that was typed before stands above it.
func (s *Shell) showPrompt(above string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ahead := s.more()
	io.WriteString(s.out, above+prompt)
	s.prompted, s.below = true, ahead > 0
}

func (s *Shell) unprompt() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.prompted = false
}

// read returns the line that is typed behind the prompt.
func (s *Shell) read() (string, error) {
	var line []byte
	for buf := make([]byte, longestLine+1); ; {
		text := s.rest
		s.rest = nil
		if len(text) == 0 {
			n, err := s.readPrompted(buf)
			if err != nil {
				return "", err
			}
			text = buf[:n]
		}
		end := bytes.IndexAny(text, "\n\x1b")
		if end < 0 {
			line = append(line, text...) // up to a Ctrl-D, or nothing after a signal
			continue
		}
		line = append(line, text[:end]...)
		s.rest = bytes.Clone(text[end+1:])
		if text[end] == esc && s.editing != nil {
			return s.edit(string(line))
		}
		return string(line), nil
	}
}

// readPrompted reads what the terminal has. The prompt is gone together with a line, so that
// nobody restores it before the answer.
func (s *Shell) readPrompted(buf []byte) (int, error) {
	if s.typing == nil {
		return s.in.Read(buf)
	}
	ready := []unix.PollFd{{Fd: int32(s.in.Fd()), Events: unix.POLLIN}}
	if _, err := unix.Poll(ready, -1); err != nil && !errors.Is(err, unix.EINTR) {
		return 0, os.NewSyscallError("poll", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if ready[0].Revents == 0 { // a signal
		return 0, nil
	}
	n, err := s.in.Read(buf)
	if n > 0 && buf[n-1] == '\n' {
		// The kernel echoes a line before it tells of it: the prompt may have been written
		// after that, and stands then where the answer is to begin. Nobody can tell, and an
		// empty line above an answer does no harm.
		if s.prompted && s.below {
			io.WriteString(s.out, "\n")
		}
		s.prompted = false
	}
	return n, err
}

// edit goes on with a line where a key of the editor's was pressed. The terminal has shown
// the first bytes of its sequence.
func (s *Shell) edit(line string) (string, error) {
	if err := s.set(s.editing); err != nil {
		return "", err
	}
	defer s.set(s.typing)
	s.mu.Lock()
	s.edits = true
	s.line.begin(line, len("^[")+len(s.rest)+s.more())
	s.mu.Unlock()
	for b := []byte{esc}; ; {
		if how, line := s.key(b[0]); how != goesOn {
			return line, nil
		}
		if len(s.rest) > 0 {
			b[0], s.rest = s.rest[0], s.rest[1:]
		} else if _, err := s.in.Read(b); err != nil {
			return "", err
		}
	}
}

// key has the editor take a byte. At the end of the line the prompt is gone.
func (s *Shell) key(b byte) (how ending, line string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	how = s.line.key(b)
	if how != goesOn {
		s.prompted, s.edits = false, false
		if line = s.line.take(); how != entered {
			line = ""
		}
	}
	s.out.Write(s.line.shown)
	s.line.shown = s.line.shown[:0]
	return how, line
}

// more returns how many bytes were typed that nobody has read; of what the terminal still edits
// none.
func (s *Shell) more() int {
	n, _ := unix.IoctlGetInt(int(s.in.Fd()), unix.TIOCINQ) // of no terminal none
	return n
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
	if s.programs == nil {
		return errors.New("the console is no terminal")
	}
	if err := s.set(s.programs); err != nil {
		return err
	}
	defer s.set(s.typing)
	cmd := exec.Command(name, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = s.in, s.in, s.in
	return cmd.Run()
}
