package shell

import (
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/Netflix/go-expect"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"guesthouse.example/guest/socketservice"
)

// terminal is a shell on a pseudo-terminal.
type terminal struct {
	*expect.Console
	t     *testing.T
	shell *Shell
	ended chan error
}

func newTerminal(t *testing.T) *terminal {
	console, err := expect.NewConsole(expect.WithDefaultTimeout(10 * time.Second))
	require.NoError(t, err)
	s := &terminal{console, t, New(console.Tty(), console.Tty()), make(chan error, 1)}
	go func() {
		s.ended <- s.shell.Run("")
		close(s.ended)
	}()
	t.Cleanup(func() {
		console.Send("\x03\x15poweroff\r") // the shell has the terminal until it ends
		select {
		case <-s.ended:
		case <-time.After(10 * time.Second):
			t.Error("the shell does not end")
		}
		console.Close()
	})
	s.sees(`^uart:~\$ $`)
	return s
}

func (s *terminal) sees(pattern string) {
	s.t.Helper()
	said, err := s.Expect(expect.Regexp(regexp.MustCompile(pattern)))
	require.NoError(s.t, err, "waiting for %s, seen %q", pattern, said)
}

func (s *terminal) types(line string) {
	s.t.Helper()
	_, err := s.Console.Send(line)
	require.NoError(s.t, err)
}

func TestHelpListsTheCommands(t *testing.T) {
	s := newTerminal(t)
	s.types("help\r")
	for _, c := range commands() {
		s.sees(c.name + ` +` + regexp.QuoteMeta(c.help) + `\r\n`)
	}
	s.sees(`uart:~\$ $`)
}

func TestNetSocketsListsTheServices(t *testing.T) {
	socketservice.Define("temperature", func(*socketservice.Event) {}, 3)
	s := newTerminal(t)
	s.types("net sockets\r")
	s.sees(`temperature +0 sockets of 3 +fd +shell/shell_test\.go:\d+ +0 calls, 0 errors in 0s, longest 0s\r\n`)
	s.sees(`\d+ services?\r\n`)
}

func TestNetStatsCountsCalls(t *testing.T) {
	socketservice.Define("humidity", func(*socketservice.Event) {}, 1)
	s := newTerminal(t)
	s.types("net stats\r")
	s.sees(`service +calls +time +longest +errors +defined at\r\n`)
	s.sees(`humidity +0 +0s +0s +0 +shell/shell_test\.go:\d+\r\n`)
}

func TestNetIfaceListsTheInterfaces(t *testing.T) {
	s := newTerminal(t)
	s.types("  net   iface \r")
	s.sees(`lo +up\S* +mtu \d+ +\r\n  127\.0\.0\.1/8\r\n`)
}

func TestAWrongCommandIsNamed(t *testing.T) {
	s := newTerminal(t)
	s.types("net\r")
	s.sees(`net: command not found; help lists the commands`)
	s.types("uptime please\r")
	s.sees(`uptime: takes no arguments, got "please"`)
}

func TestAnEmptyLineAndCtrlDGiveAPrompt(t *testing.T) {
	s := newTerminal(t)
	s.types("\r")
	s.sees(`\r\nuart:~\$ $`)
	s.types("\x04")
	s.sees(`\r\nuart:~\$ $`)
}

func TestAProgramRunsOnTheTerminalAndGivesItBack(t *testing.T) {
	s := newTerminal(t)
	before, err := unix.IoctlGetTermios(int(s.Tty().Fd()), unix.TCGETS)
	require.NoError(t, err)
	s.types("sh stty -echo; tty >/dev/null && echo is a terminal\r")
	s.sees(`\nis a terminal`)
	s.sees(`uart:~\$ $`)
	after, err := unix.IoctlGetTermios(int(s.Tty().Fd()), unix.TCGETS)
	require.NoError(t, err)
	require.Equal(t, before, after)
	s.types("sh echo 'a   b'   c\r")
	s.sees(`\na   b c\r\n`)
	s.types("sh exit 3\r")
	s.sees(`sh: exit status 3`)
}

func TestALogLineStandsAboveThePrompt(t *testing.T) {
	s := newTerminal(t)
	fmt.Fprintln(s.shell, "[00:00:01.000,000] <inf> app: hello")
	s.sees(`\r\n\[00:00:01\.000,000\] <inf> app: hello\r\nuart:~\$ $`)
}

// A person may type as soon as the terminal shows the greeting. A prompt in a later write would stand
// where the answer begins.
func TestTheGreetingAndThePromptAreOneWrite(t *testing.T) {
	read, write, err := os.Pipe()
	require.NoError(t, err)
	defer write.Close()
	var out writes
	s := New(read, &out)
	fmt.Fprintln(write, "poweroff")
	require.NoError(t, s.Run("guesthouse: ready\n"))
	require.Equal(t, writes{"guesthouse: ready\n" + prompt}, out)
}

// writes records what each call of Write writes.
type writes []string

func (w *writes) Write(p []byte) (int, error) {
	*w = append(*w, string(p))
	return len(p), nil
}

// The bytes that a terminal sends for keys.
const (
	up, down, right, left = "\x1b[A", "\x1b[B", "\x1b[C", "\x1b[D"
	home, end, del        = "\x1b[H", "\x1b[F", "\x1b[3~"
	ctrlC, ctrlU, ctrlW   = "\x03", "\x15", "\x17"
)

func TestTheUsualKeysEditALine(t *testing.T) {
	for name, c := range map[string]struct{ before, key, after, runs string }{
		"left":                     {"sh echo wrld", left, left + left + "o\r", "world"},
		"the keypad's arrows":      {"sh echo wrld", "\x1bOD", "\x1bOD\x1bODo\r", "world"},
		"right":                    {"sh echo wrld", left, left + left + left + right + "o\r", "world"},
		"home":                     {"echo hello", home, "sh \r", "hello"},
		"end":                      {"echo hello", home, "sh " + end + " you\r", "hello you"},
		"delete":                   {"xsh echo hello", home, del + "\r", "hello"},
		"backspace":                {"sh echo hexllo", left, left + left + "\x7f\r", "hello"},
		"backspace at the start":   {"sh echo hello", home, "\x7f\x7f\r", "hello"},
		"a character of two bytes": {"sh echo 20°", end, "C\r", "20°C"},
		"one of them removed":      {"sh echo 20°", end, "\x7f\r", "20"},
		"a letter in the middle":   {"sh echo Zrich", left, left + left + left + "ü\r", "Zürich"},
		"a tab":                    {"sh echo\t'a\tb'", left, left + left + left + left + "\t\r", "a\tb"},
		"Ctrl-U":                   {"nonsense", left, ctrlU + "sh echo hello\r", "hello"},
		"Ctrl-W":                   {"sh echo hello world ", end, ctrlW + "\r", "hello"},
		"Ctrl-A and Ctrl-E":        {"echo hell", left, "\x01sh \x05o\r", "hello"},
		"a key without a meaning":  {"sh echo he", "\x1b[15~", "llo\x1bx\r", "hello"},
		"Esc and Enter":            {"sh echo hello", "\x1b", "\r", "hello"},
		"Ctrl-D in a line":         {"sh echo hel", end, "\x04lo\r", "hello"},
		"nothing in the history":   {"sh echo hello", up, up + down + "\r", "hello"},
		"bytes that are no text":   {"sh printf 'a\xc3 \xff' | hexdump -C", left, "C\r", ".*61 c3 20 ff.*"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newTerminal(t)
			s.types(c.before + c.key)
			s.sees(`\ruart:~\$ `) // the editor has the line
			s.types(c.after)
			shown, err := s.Expect(expect.Regexp(regexp.MustCompile(`\n` + c.runs + `\r\n`)))
			require.NoError(t, err, "%q", shown)
			require.NotContains(t, shown, "\x1b", "what is shown has no escape sequences")
			s.sees(`uart:~\$ $`)
			s.types("uptime\r") // as before
			s.sees(`^uptime\r\nUptime: \d+ ms\r\nuart:~\$ $`)
		})
	}
}

func TestCtrlCDropsTheEditedLine(t *testing.T) {
	s := newTerminal(t)
	s.types("nonsense" + left)
	s.sees(`\ruart:~\$ nonsense`)
	s.types(ctrlC)
	s.sees(`\^C\r\nuart:~\$ $`)
	s.types("uptime\r")
	s.sees(`^uptime\r\nUptime: \d+ ms\r\n`)
}

func TestUpAndDownShowEarlierLines(t *testing.T) {
	s := newTerminal(t)
	for _, word := range []string{"one", "two"} {
		s.types("sh echo " + word + "\r")
		s.sees(`\n` + word + `\r\nuart:~\$ $`)
	}
	s.types(up)
	s.sees(`\ruart:~\$ .*sh echo two$`)
	s.types(up + "\r")
	s.sees(`\none\r\nuart:~\$ $`)
	s.types("sh echo th")
	s.sees(`th$`)
	s.types(up)
	s.sees(`\ruart:~\$ sh echo th`)
	s.types(up + up + down + down + down + "ree\r")
	s.sees(`\nthree\r\nuart:~\$ $`)
}

func TestALineOfAnyLengthIsTaken(t *testing.T) {
	s := newTerminal(t)
	word := strings.Repeat("0123456789", 300)
	s.types("sh echo " + word + " | wc -c\r")
	s.sees(`\n3001\r\n`)
}

// Lines that are typed after a command are input of the program that the command starts.
func TestAProgramReadsTheInputThatWasTypedAhead(t *testing.T) {
	s := newTerminal(t)
	s.types("sh read line; echo \"it got $line\"\rfirst line\rsh echo and then\r")
	s.sees(`\nit got first line\r\n`)
	s.sees(`uart:~\$ \r\nand then\r\n`) // the answer begins a line
}

func TestALogLineLeavesTheEditedLineWhole(t *testing.T) {
	s := newTerminal(t)
	s.types("upme" + left)
	s.sees(`\ruart:~\$ upme`)
	s.types(left)
	s.sees(`\x08\x08$`)
	fmt.Fprintln(s.shell, "[00:00:01.000,000] <inf> app: hello")
	s.sees(`\r\n\[00:00:01\.000,000\] <inf> app: hello\r\nuart:~\$ upme\x08\x08$`)
	s.types("ti\r")
	s.sees(`\nUptime: \d+ ms\r\n`)
}

// The prompt that a log line restores must not come between a command and its answer.
func TestAnAnswerBeginsOnItsOwnLineEvenBetweenLogLines(t *testing.T) {
	s := newTerminal(t)
	for range 50 {
		go fmt.Fprintln(s.shell, "[00:00:01.000,000] <inf> app: hello")
		s.types("uptime\r")
		s.sees(`\nUptime: \d+ ms\r\n`)
		s.sees(`uart:~\$ `)
	}
}

func TestPoweroffEndsTheShell(t *testing.T) {
	s := newTerminal(t)
	s.types("poweroff\r")
	require.NoError(t, <-s.ended)
}

func TestTheShellEndsWhenTheTerminalIsGone(t *testing.T) {
	read, write, err := os.Pipe()
	require.NoError(t, err)
	defer write.Close()
	s := New(read, io.Discard)
	ended := make(chan error)
	require.NoError(t, read.Close())
	go func() { ended <- s.Run("") }()
	require.ErrorContains(t, <-ended, "console: ")
}
