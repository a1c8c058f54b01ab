// Package shell is a command line on the serial console, like Zephyr's shell. It has a few commands
// that show the machine's state, keeps log lines apart from the line that a person types, and starts
// u-root's shell on request.
//
// The kernel's terminal edits the line (backspace, Ctrl-U, Ctrl-W), so the console shows only plain
// text. When a person presses an arrow or a similar key, the shell's own editor takes over the line.
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

// A Shell reads commands from a terminal. Other code writes to the terminal with Write, which keeps
// each line whole and the prompt below the lines.
type Shell struct {
	in  *os.File
	out io.Writer

	// The modes of the terminal: for programs, at the prompt, and for the editor. They are nil if in
	// is no terminal.
	programs, typing, editing *unix.Termios

	rest []byte // input that was read after the end of a line

	mu       sync.Mutex
	prompted bool // the prompt stands on the last line
	below    bool // the prompt may stand below the echo of a line that the shell has not read yet
	edits    bool // the editor has the line
	line     editor
}

// New returns a shell that reads from a terminal and writes to out, the same terminal.
func New(in *os.File, out io.Writer) *Shell { return &Shell{in: in, out: out} }

// Write writes p, which should end with a newline, and the prompt below it. When a person has just
// entered a line, it writes no prompt, because the answer comes next.
func (s *Shell) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.prompted || s.buffered() > 0 && !s.edits {
		return s.out.Write(p)
	}
	redrawn := ""
	if s.edits {
		s.line.shown = s.line.shown[:0] // redrawn shows it
		redrawn = s.line.redraw()
	}
	_, err := fmt.Fprintf(s.out, "\n%s%s%s", p, prompt, redrawn)
	s.below = true
	return len(p), err
}

// errPowerOff is returned by the command poweroff.
var errPowerOff = errors.New("power off")

// Run writes a greeting, which should end with a newline, and the first prompt below it. It serves
// commands until the command poweroff, and then returns nil. If the terminal is gone, it returns an
// error. The answer to a line that was typed after a prompt begins on a line of its own.
func (s *Shell) Run(greeting string) error {
	// Ctrl-C is for the program in the foreground and must not end the shell. At the prompt the
	// terminal drops the line, and a new prompt shows that.
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

// openTerminal makes the terminal deliver the line also at an escape character, because the sequences
// of arrows and similar keys begin with it. It does nothing if the input is not a terminal.
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

// set changes the mode of the terminal. It does nothing if the input is not a terminal.
func (s *Shell) set(mode *unix.Termios) error {
	if mode == nil {
		return nil
	}
	return os.NewSyscallError("TCSETS", unix.IoctlSetTermios(int(s.in.Fd()), unix.TCSETS, mode))
}

// showPrompt writes text and the prompt with one write, so that no other write comes between them.
// The echo of a line that was typed ahead stands above the prompt.
func (s *Shell) showPrompt(above string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ahead := s.buffered()
	io.WriteString(s.out, above+prompt)
	s.prompted, s.below = true, ahead > 0
}

func (s *Shell) unprompt() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.prompted = false
}

// read returns the next line.
func (s *Shell) read() (string, error) {
	var line []byte
	for buf := make([]byte, maxLine+1); ; {
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
			line = append(line, text...) // Ctrl-D ended the read, or a signal did
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

// readPrompted reads from the terminal. If it reads a whole line, it also marks the prompt as gone, so
// that Write does not repeat the prompt before the answer.
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
		// The kernel echoes a line before it delivers the line. If Write has written the prompt in
		// between, the answer would begin after the prompt. The shell cannot know that, so it writes a
		// newline whenever it is possible. An empty line above an answer does no harm.
		if s.prompted && s.below {
			io.WriteString(s.out, "\n")
		}
		s.prompted = false
	}
	return n, err
}

// edit takes over the line when a person has pressed an arrow or a similar key. The terminal has
// already shown the first bytes of the key's sequence.
func (s *Shell) edit(line string) (string, error) {
	if err := s.set(s.editing); err != nil {
		return "", err
	}
	defer s.set(s.typing)
	s.mu.Lock()
	s.edits = true
	s.line.begin(line, len("^[")+len(s.rest)+s.buffered())
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

// key passes a byte to the editor. At the end of the line it marks the prompt as gone.
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

// buffered returns how many bytes of input wait to be read. A line that the terminal still edits
// does not count.
func (s *Shell) buffered() int {
	n, _ := unix.IoctlGetInt(int(s.in.Fd()), unix.TIOCINQ) // 0 if the input is no terminal
	return n
}

// execute runs the command at the beginning of a line.
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

// cutWords returns the text after words at the beginning of a line.
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

// foreground runs a program on the terminal and then restores the terminal's mode.
func (s *Shell) foreground(name string, args ...string) error {
	if s.programs == nil {
		return errors.New("the console is not a terminal")
	}
	if err := s.set(s.programs); err != nil {
		return err
	}
	defer s.set(s.typing)
	cmd := exec.Command(name, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = s.in, s.in, s.in
	return cmd.Run()
}
