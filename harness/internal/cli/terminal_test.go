package cli

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/Netflix/go-expect"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"guesthouse.example/harness/harnesstest"
	"guesthouse.example/internal/sys"
)

// A session is a run of the command on a terminal of its own.
type session struct {
	*expect.Console
	t      *testing.T
	cmd    *exec.Cmd
	before *unix.Termios
	screen *transcript
}

// A transcript is the text that the terminal has shown so far.
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

func start(t *testing.T, args ...string) *session {
	harnesstest.Require(t, anyTarget)
	return startCommand(t, append([]string{"run", "-target", anyTarget}, args...)...)
}

func startCommand(t *testing.T, args ...string) *session {
	return startAs(t, "guesthouse", args...)
}

// startAs starts one of the commands that the test binary contains.
func startAs(t *testing.T, name string, args ...string) *session {
	return startProgram(t, os.Args[0], name, args...)
}

// startProgram starts a program, under a name, on a terminal of its own.
func startProgram(t *testing.T, path, name string, args ...string) *session {
	shown := new(transcript)
	console, err := expect.NewConsole(expect.WithDefaultTimeout(60*time.Second), expect.WithStdout(shown))
	require.NoError(t, err)
	before, err := unix.IoctlGetTermios(int(console.Tty().Fd()), unix.TCGETS)
	require.NoError(t, err)
	s := &session{Console: console, t: t, before: before, screen: shown}
	s.cmd = &exec.Cmd{
		Path: path, Args: append([]string{name}, args...),
		Stdin: console.Tty(), Stdout: console.Tty(), Stderr: console.Tty(),
		// The process controls the terminal, like a command that a shell starts.
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

// givesBack waits until run has restored the terminal's modes.
func (s *session) givesBack() {
	s.t.Helper()
	s.sees(regexp.QuoteMeta(giveBackModes))
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

func TestRunConnectsTheTerminalToTheConsole(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.sees(`guesthouse: ` + anyTarget + ` ready in \d+\.\d\d s \((?:restored|cold(?:: [^)]+)?), (?:tcg|kvm): [^)]+\); udp 127\.0\.0\.1:\d+ -> 4242; tcp 127\.0\.0\.1:\d+ -> 4242; Ctrl-A x ends\r\n`)
	s.types("net sockets\r")
	s.sees(`service_udp +1 socket`)
	s.sees(`uart:~\$ `)

	s.types("sh echo begun; sleep 1000\r")
	s.sees(`\nbegun`)
	s.types(ctrlC) // goes to the guest and does not end run
	s.sees(`uart:~\$ `)

	s.types(ctrlA + "h")
	s.sees(`Ctrl-A x  end the machine`)
	s.types("a" + ctrlA + ctrlA + "b\r")
	s.sees(`a\^Ab`) // as the guest's terminal shows what it got
	s.sees(`uart:~\$ $`)
	s.types("\x1b[A") // Up
	s.sees(`\ruart:~\$ .*a\^Ab$`)
	s.types("\x1b[A\x1b[A\r") // up to net sockets
	s.sees(`\nservice_udp +1 socket`)
	s.sees(`uart:~\$ $`)

	s.types(ctrlA + "x")
	s.givesBack()
	s.ends(0)
}

func TestAPowerOffRestoresTheTerminal(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.sees(`uart:~\$ `)
	s.types("poweroff\r")
	s.givesBack()
	s.ends(0)
}

// leaves lists the modes in which a guest can leave a terminal, with the sequence that undoes each.
var leaves = map[string][2]string{
	"half a title":                {"\x1b]0;half", "\x1b\\"},
	"synchronized update":         {"\x1b[?2026h", "\x1b[?2026l"},
	"alternate screen":            {"\x1b[?1049h", "\x1b[?1049l"},
	"origin mode":                 {"\x1b[?6h", "\x1b[?6l"},
	"scroll region":               {"\x1b[2;5r", "\x1b[r"},
	"margins":                     {"\x1b[?69h", "\x1b[?69l"},
	"shifted out":                 {"\x0e", "\x0f"},
	"line drawing":                {"\x1b(0", "\x1b(B"},
	"line drawing as G1":          {"\x1b)0", "\x1b)B"},
	"modifyOtherKeys":             {"\x1b[>4;2m", "\x1b[>4m"},
	"colours":                     {"\x1b[7;31m", "\x1b[0m"},
	"link":                        {"\x1b]8;;http://192.0.2.2/\x1b\\", "\x1b]8;;\x1b\\"},
	"palette":                     {"\x1b]4;1;#000000\x1b\\", "\x1b]104\x1b\\"},
	"foreground":                  {"\x1b]10;#000000\x1b\\", "\x1b]110\x1b\\"},
	"background":                  {"\x1b]11;#000000\x1b\\", "\x1b]111\x1b\\"},
	"colour of the cursor":        {"\x1b]12;#000000\x1b\\", "\x1b]112\x1b\\"},
	"reverse video":               {"\x1b[?5h", "\x1b[?5l"},
	"hidden cursor":               {"\x1b[?25l", "\x1b[?25h"},
	"shape of the cursor":         {"\x1b[5 q", "\x1b[0 q"},
	"no line wrap":                {"\x1b[?7l", "\x1b[?7h"},
	"insert mode":                 {"\x1b[4h", "\x1b[4l"},
	"new-line mode":               {"\x1b[20h", "\x1b[20l"},
	"local echo":                  {"\x1b[12l", "\x1b[12h"},
	"locked keyboard":             {"\x1b[2h", "\x1b[2l"},
	"no repeated keys":            {"\x1b[?8l", "\x1b[?8h"},
	"application cursor keys":     {"\x1b[?1h", "\x1b[?1l"},
	"application keypad":          {"\x1b=", "\x1b>"},
	"kitty's keyboard":            {"\x1b[>1u", "\x1b[=0u"},
	"mouse of X10":                {"\x1b[?9h", "\x1b[?9l"},
	"mouse":                       {"\x1b[?1000h", "\x1b[?1000l"},
	"mouse when a button is held": {"\x1b[?1002h", "\x1b[?1002l"},
	"mouse always":                {"\x1b[?1003h", "\x1b[?1003l"},
	"mouse in UTF-8":              {"\x1b[?1005h", "\x1b[?1005l"},
	"mouse as SGR":                {"\x1b[?1006h", "\x1b[?1006l"},
	"mouse as urxvt":              {"\x1b[?1015h", "\x1b[?1015l"},
	"mouse in pixels":             {"\x1b[?1016h", "\x1b[?1016l"},
	"focus":                       {"\x1b[?1004h", "\x1b[?1004l"},
	"bracketed paste":             {"\x1b[?2004h", "\x1b[?2004l"},
	"no tab stops":                {"\x1b[3g", "\x1b[?5W"},
	"title":                       {"\x1b]0;guest\x07", "\x1b[23;0t"},
}

func TestEveryModeThatAGuestLeavesIsUndone(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.sees(regexp.QuoteMeta(keepTitle))
	s.sees(`Ctrl-A x ends\r\n`)
	s.sees(`uart:~\$ `)
	for name, c := range leaves {
		octal := ""
		for _, b := range []byte(c[0]) {
			octal += fmt.Sprintf(`\%03o`, b)
		}
		s.types("sh printf '" + octal + "'\r")
		s.sees(regexp.QuoteMeta(c[0])) // it is the guest's live console
		s.sees(`uart:~\$ `)
		require.Contains(t, s.screen.String(), c[0], name)
	}
	s.types(ctrlA + "x")
	s.givesBack()
	shown := s.screen.String()
	for name, c := range leaves {
		require.Greater(t, strings.LastIndex(shown, c[1]), strings.LastIndex(shown, c[0]), name)
	}
	s.ends(0)
}

func TestTheTerminalIsRestoredWhileRunIsStopped(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.sees(`Ctrl-A x ends\r\n`)
	s.sees(`uart:~\$ `)
	require.NoError(t, s.cmd.Process.Signal(unix.SIGTSTP))
	s.givesBack()
	require.Eventually(t, func() bool {
		p, ok := sys.LookupProcess(s.cmd.Process.Pid)
		return ok && p.State == 'T'
	}, time.Minute, 10*time.Millisecond)
	now, err := unix.IoctlGetTermios(int(s.Tty().Fd()), unix.TCGETS)
	require.NoError(t, err)
	require.Equal(t, s.before, now)

	require.NoError(t, s.cmd.Process.Signal(unix.SIGCONT))
	s.sees(`uart:~\$ `) // the guest's unfinished line is shown again
	s.types("uptime\r")
	s.sees(`Uptime: \d+ ms`)
	s.types(ctrlA + "x")
	s.givesBack()
	s.ends(0)
}

func TestCtrlAXEndsAMachineThatStillBoots(t *testing.T) {
	t.Parallel()
	s := start(t, "-cold")
	s.sees(`init: starting /bin/uinit`)
	s.types(ctrlA + "x")
	s.givesBack()
	s.ends(0)
}

func TestASignalRestoresTheTerminal(t *testing.T) {
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT} {
		t.Run(signal.String(), func(t *testing.T) {
			t.Parallel()
			record := filepath.Join(t.TempDir(), "record")
			s := start(t, "-cold", "-dir", record)
			s.sees(`init: starting /bin/uinit`)
			require.NoError(t, s.cmd.Process.Signal(signal))
			s.givesBack()
			s.ends(128 + int(signal))
			require.FileExists(t, filepath.Join(record, "console.log"))
		})
	}
}

func TestAPanicRestoresTheTerminal(t *testing.T) {
	t.Parallel()
	harnesstest.Require(t, anyTarget)
	s := startAs(t, "guesthouse-that-panics", "run", "-target", anyTarget, "-dir", t.TempDir())
	s.givesBack()
	s.sees(`panic: too much`)
	s.ends(2)
}

func TestAGuestThatFailsIsExplainedOnTheTerminal(t *testing.T) {
	t.Parallel()
	s := start(t, "-append", "module_blacklist=virtio_net", "-dir", t.TempDir())
	s.sees(`kernel module virtio_net: operation not permitted`)
	s.sees(`its console has not shown "guesthouse: ready\$": the guest failed: its program has ended: exit status 1`)
	s.ends(1)
}

// The user may look around in a guest that has crashed, but the run has not ended well.
func TestCtrlAXAfterACrashIsAFailure(t *testing.T) {
	t.Parallel()
	s := start(t, "-crash", "FATAL: ")
	s.sees(`uart:~\$ `)
	s.types("sh echo; echo 'FATAL: no such sensor'\r")
	s.sees(`guesthouse: the guest failed: FATAL: no such sensor`)
	s.sees(`Ctrl-A x ends\r\n`)
	s.types(ctrlA + "x")
	s.givesBack()
	s.ends(statusOwn)
}

// make qemu-run runs the command in this way.
func TestRunWorksUnderLeash(t *testing.T) {
	t.Parallel()
	harnesstest.Require(t, anyTarget)
	leash := filepath.Join(t.TempDir(), "leash")
	out, err := exec.Command("go", "build", "-buildvcs=false", "-o", leash, "guesthouse.example/internal/leash").CombinedOutput()
	require.NoError(t, err, "%s", out)
	s := startProgram(t, leash, "leash", "guesthouse", "run", "-target", anyTarget)
	s.sees(`uart:~\$ `)
	s.types("sh echo begun; sleep 1000\r")
	s.sees(`\nbegun`)
	s.types(ctrlC) // for the guest
	s.sees(`uart:~\$ `)
	s.types(ctrlA + "x")
	s.ends(0)
}
