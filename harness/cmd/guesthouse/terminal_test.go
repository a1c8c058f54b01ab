package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/Netflix/go-expect"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"guesthouse.example/harness/harnesstest"
)

// A session is the command on a terminal of its own, as a person has it.
type session struct {
	*expect.Console
	t      *testing.T
	cmd    *exec.Cmd
	before *unix.Termios
	screen *transcript
}

// A transcript is all that the terminal has shown.
type transcript struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *transcript) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *transcript) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func start(t *testing.T, target string, args ...string) *session {
	harnesstest.Require(t, target)
	return startCommand(t, append([]string{"run", "-target", target}, args...)...)
}

func startCommand(t *testing.T, args ...string) *session {
	return startAs(t, "guesthouse", args...)
}

// startAs starts one of the commands that the test binary is.
func startAs(t *testing.T, name string, args ...string) *session {
	shown := new(transcript)
	console, err := expect.NewConsole(expect.WithDefaultTimeout(60*time.Second), expect.WithStdout(shown))
	require.NoError(t, err)
	before, err := unix.IoctlGetTermios(int(console.Tty().Fd()), unix.TCGETS)
	require.NoError(t, err)
	s := &session{Console: console, t: t, before: before, screen: shown}
	s.cmd = &exec.Cmd{
		Path: os.Args[0], Args: append([]string{name}, args...),
		Stdin: console.Tty(), Stdout: console.Tty(), Stderr: console.Tty(),
		// The terminal is its own, as for a command that a shell starts.
		SysProcAttr: &syscall.SysProcAttr{Setsid: true, Setctty: true},
	}
	require.NoError(t, s.cmd.Start())
	t.Cleanup(func() {
		s.cmd.Process.Kill()
		console.Close()
		if t.Failed() {
			t.Logf("the terminal showed:\n%s", shown)
		}
	})
	return s
}

func (s *session) sees(pattern string) {
	s.t.Helper()
	_, err := s.Expect(expect.Regexp(regexp.MustCompile(pattern)))
	require.NoError(s.t, err, "waiting for %s", pattern)
}

func (s *session) types(keys string) {
	s.t.Helper()
	_, err := s.Console.Send(keys)
	require.NoError(s.t, err)
}

// ends waits for the command's end and checks that the terminal is as it was.
func (s *session) ends(status int) {
	s.t.Helper()
	ended := make(chan error, 1)
	go func() { ended <- s.cmd.Wait() }()
	// A pseudo-terminal that nobody reads would hold up the last words.
	go s.ExpectEOF()
	select {
	case <-ended:
	case <-time.After(60 * time.Second):
		s.t.Fatal("the command has not ended")
	}
	require.Equal(s.t, status, s.cmd.ProcessState.ExitCode())
	after, err := unix.IoctlGetTermios(int(s.Tty().Fd()), unix.TCGETS)
	require.NoError(s.t, err)
	require.Equal(s.t, s.before, after, "the terminal is as it was")
}

const (
	ctrlA = "\x01"
	ctrlC = "\x03"
)

func TestATerminalIsTheGuestsConsole(t *testing.T) {
	for _, target := range []string{"x86", "x86_64", "arm", "arm64"} {
		t.Run(target, func(t *testing.T) {
			t.Parallel()
			s := start(t, target)
			s.sees(`guesthouse: ` + target + ` ready in \d+\.\d\d s \((?:restored|cold(?:: [^)]+)?), (?:tcg|kvm): [^)]+\); udp 127\.0\.0\.1:\d+ -> 4242; tcp 127\.0\.0\.1:\d+ -> 4242; Ctrl-A x ends\r\n`)
			s.types("net sockets\r")
			s.sees(`service_udp +1 socket`)
			s.sees(`uart:~\$ `)

			s.types("sh echo begun; sleep 1000\r")
			s.sees(`\nbegun`)
			s.types(ctrlC) // to the guest, not to us
			s.sees(`uart:~\$ `)

			s.types(ctrlA + "h")
			s.sees(`Ctrl-A x  end the machine`)
			s.types("a" + ctrlA + ctrlA + "b\r")
			s.sees(`a\^Ab`) // as the guest's terminal shows what it got

			s.types(ctrlA + "x")
			s.sees(`\x1b\[\?7h`) // line wrap is on again
			s.ends(0)
		})
	}
}

// How the terminal is given back does not depend on the target: this and the tests
// below have the one that boots soonest.
func TestAGuestThatPowersOffGivesTheTerminalBack(t *testing.T) {
	t.Parallel()
	s := start(t, "arm64")
	s.sees(`uart:~\$ `)
	s.types("poweroff\r")
	s.ends(0)
}

func TestCtrlAXEndsAMachineThatStillBoots(t *testing.T) {
	t.Parallel()
	s := start(t, "arm64", "-cold")
	s.sees(`init: starting /bin/uinit`)
	s.types(ctrlA + "x")
	s.ends(0)
}

func TestASignalGivesTheTerminalBack(t *testing.T) {
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT} {
		t.Run(signal.String(), func(t *testing.T) {
			t.Parallel()
			record := filepath.Join(t.TempDir(), "record")
			s := start(t, "arm64", "-cold", "-dir", record)
			s.sees(`init: starting /bin/uinit`)
			require.NoError(t, s.cmd.Process.Signal(signal))
			s.ends(128 + int(signal))
			require.FileExists(t, filepath.Join(record, "console.log"))
		})
	}
}

func TestAPanicGivesTheTerminalBack(t *testing.T) {
	t.Parallel()
	harnesstest.Require(t, "arm64")
	s := startAs(t, "guesthouse-that-panics", "run", "-target", "arm64", "-dir", t.TempDir())
	s.sees(`\x1b\[\?7h`) // line wrap
	s.sees(`panic: too much`)
	s.ends(2)
}

func TestAGuestThatFailsIsExplainedOnTheTerminal(t *testing.T) {
	t.Parallel()
	s := start(t, "arm64", "-append", "module_blacklist=virtio_net", "-dir", t.TempDir())
	s.sees(`kernel module virtio_net: operation not permitted`)
	s.sees(`its console has not shown "guesthouse: ready\$": the guest failed: its program has ended: exit status 1`)
	s.ends(1)
}
