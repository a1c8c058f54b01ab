package shell

import (
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"testing"
	"time"

	"github.com/Netflix/go-expect"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"guesthouse.example/guest/socketservice"
)

// terminal is a shell that runs on a real terminal.
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
	go func() { s.ended <- s.shell.Run("", func() {}) }()
	t.Cleanup(func() { console.Close() })
	s.sees(`^uart:~\$ $`)
	return s
}

func (s *terminal) sees(pattern string) {
	s.t.Helper()
	_, err := s.Expect(expect.Regexp(regexp.MustCompile(pattern)))
	require.NoError(s.t, err, "waiting for %s", pattern)
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

// Somebody who has seen the greeting may type at once: the answer must not begin beside a prompt
// that comes later.
func TestTheGreetingComesWithThePromptBelowIt(t *testing.T) {
	read, write, err := os.Pipe()
	require.NoError(t, err)
	var out writes
	s := New(read, &out)
	require.NoError(t, write.Close())
	prompted := errors.New("prompted")
	require.PanicsWithValue(t, prompted, func() { s.Run("guesthouse: ready\n", func() { panic(prompted) }) })
	require.Equal(t, writes{"guesthouse: ready\n" + Prompt}, out)
}

// writes are what was written, a call each.
type writes []string

func (w *writes) Write(p []byte) (int, error) {
	*w = append(*w, string(p))
	return len(p), nil
}

func TestPoweroffEndsTheShell(t *testing.T) {
	s := newTerminal(t)
	s.types("poweroff\r")
	require.NoError(t, <-s.ended)
}

func TestATerminalThatIsGoneEndsTheShell(t *testing.T) {
	read, write, err := os.Pipe()
	require.NoError(t, err)
	defer write.Close()
	s := New(read, io.Discard)
	ended := make(chan error)
	require.NoError(t, read.Close())
	go func() { ended <- s.Run("", func() {}) }()
	require.ErrorContains(t, <-ended, "console: ")
}
