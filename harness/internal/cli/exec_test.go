package cli

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"guesthouse.example/harness/harnesstest"
	"guesthouse.example/images"
	"guesthouse.example/internal/sys"
)

// runs returns a program of the host that does what its first argument says; see its source.
func runs(t *testing.T) string {
	harnesstest.Require(t, anyTarget)
	program, err := images.Program(t.Context(), anyTarget, "guesthouse.example/harness/integration/guests/runs", images.Options{})
	require.NoError(t, err)
	return program.Path
}

// execWithin bounds a run of exec on a busy host.
const execWithin = 5 * time.Minute

// An execution is a run of guesthouse exec in a process of its own.
type execution struct {
	t    *testing.T
	cmd  *exec.Cmd
	tmp  string // its directory for temporary files
	in   io.WriteCloser
	out  *bufio.Reader
	said bytes.Buffer // its standard error
}

// startExec starts guesthouse exec for anyTarget.
func startExec(t *testing.T, args ...string) *execution {
	t.Helper()
	return startExecFor(t, anyTarget, t.TempDir(), args...)
}

func startExecFor(t *testing.T, target, tmp string, args ...string) *execution {
	t.Helper()
	harnesstest.Require(t, target)
	harnesstest.Platform(t, target) // builds it, if nobody has
	ctx, cancel := context.WithTimeout(t.Context(), execWithin)
	t.Cleanup(cancel)
	e := &execution{t: t, tmp: tmp}
	self, err := os.Executable()
	require.NoError(t, err)
	e.cmd = exec.CommandContext(ctx, self, append([]string{"exec", "-target", target}, args...)...)
	e.cmd.Args[0] = "guesthouse"
	e.cmd.Dir = tmp // in no module
	e.cmd.Env = append(os.Environ(), "TMPDIR="+tmp)
	e.cmd.Stderr = &e.said
	e.in, err = e.cmd.StdinPipe()
	require.NoError(t, err)
	out, err := e.cmd.StdoutPipe()
	require.NoError(t, err)
	e.out = bufio.NewReader(out)
	require.NoError(t, e.cmd.Start())
	t.Cleanup(func() { e.cmd.Process.Kill() })
	return e
}

// sees reads a line of the output.
func (e *execution) sees(line string) {
	e.t.Helper()
	text, err := e.out.ReadString('\n')
	require.NoError(e.t, err)
	require.Equal(e.t, line+"\n", text)
}

func (e *execution) signal(s unix.Signal) {
	e.t.Helper()
	require.NoError(e.t, unix.Kill(e.cmd.Process.Pid, s))
}

// ends waits for the end, and checks the status and that no file is left. It returns the rest of the output.
func (e *execution) ends(status int) string {
	e.t.Helper()
	rest := e.exits(status)
	left, err := os.ReadDir(e.tmp)
	require.NoError(e.t, err)
	require.Empty(e.t, left)
	return rest
}

func (e *execution) exits(status int) string {
	e.t.Helper()
	rest, err := io.ReadAll(e.out)
	require.NoError(e.t, err)
	e.cmd.Wait()
	require.Equal(e.t, status, e.cmd.ProcessState.ExitCode(), "%s", &e.said)
	return string(rest)
}

// fails waits for the end of a run whose machine is lost. Its record is left, and the error names it.
func (e *execution) fails(says ...string) {
	e.t.Helper()
	e.exits(statusOwn)
	records, err := filepath.Glob(e.tmp + "/*")
	require.NoError(e.t, err)
	require.Len(e.t, records, 1)
	for _, text := range append(says, "guesthouse: error: ", records[0]) {
		require.Contains(e.t, e.said.String(), text)
	}
}

func TestExecCarriesEveryByte(t *testing.T) {
	t.Parallel()
	data := make([]byte, 3<<20)
	rand.Read(data)
	e := startExec(t, "cat")
	go func() {
		e.in.Write(data)
		e.in.Close()
	}()
	require.True(t, string(data) == e.ends(0), "other bytes")
	require.Empty(t, e.said.String())
}

// The output is larger than the memory that exec may use. GUESTHOUSE_TEST_OUTPUT sets another size in MiB.
func TestExecNeedsLittleMemoryForMuchOutput(t *testing.T) {
	t.Parallel()
	const most, held = 128 << 20, 1 << 20
	mib := 192
	if text := os.Getenv("GUESTHOUSE_TEST_OUTPUT"); text != "" {
		_, err := fmt.Sscan(text, &mib)
		require.NoError(t, err)
	}
	size := int64(mib) << 20
	var block [4096]byte // as the program makes it
	for i := range block {
		block[i] = byte(i * i / 7)
	}
	right := sha256.New()
	for range size / int64(len(block)) {
		right.Write(block[:])
	}

	e := startExec(t, runs(t), "pour", fmt.Sprint(size))
	got := sha256.New()
	_, err := io.CopyN(got, e.out, size-held)
	require.NoError(t, err)
	// Exec waits for a reader of the rest. The line is "VmHWM:	 45678 kB".
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", e.cmd.Process.Pid))
	require.NoError(t, err)
	_, line, ok := strings.Cut(string(status), "VmHWM:")
	require.True(t, ok)
	var kib int64
	_, err = fmt.Sscan(line, &kib)
	require.NoError(t, err)
	require.Less(t, kib<<10, int64(most))
	rest := e.ends(0)
	require.Len(t, rest, held)
	io.WriteString(got, rest)
	require.Equal(t, right.Sum(nil), got.Sum(nil))
}

func TestExecEndsWithItsProgramWhateverItsInputDoes(t *testing.T) {
	t.Parallel()
	e := startExec(t, "head", "-c", "3") // the input is an open pipe without a byte
	go io.Copy(e.in, zeros{})
	require.Equal(t, "\x00\x00\x00", e.ends(0))
	e = startExec(t, runs(t), "pour", "10000")
	require.Len(t, e.ends(0), 10000)
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

func TestSignalsReachTheProgramOfExec(t *testing.T) {
	t.Parallel()
	program := runs(t)
	e := startExec(t, program, "signals")
	e.sees("ready")
	e.signal(unix.SIGINT)
	e.sees("interrupt")
	e.signal(unix.SIGTERM)
	e.sees("terminated")
	e.signal(unix.SIGUSR1)
	e.sees("user defined signal 1")
	e.ends(0)

	// Go's runtime answers SIGQUIT with the stacks of all goroutines.
	e = startExec(t, program, "stubborn")
	e.sees("ready")
	e.signal(unix.SIGQUIT)
	e.ends(2)
	require.Contains(t, e.said.String(), "SIGQUIT: quit")
	require.Contains(t, e.said.String(), "goroutine 1 ")
	require.Contains(t, e.said.String(), "main.main()")
}

func TestTheSecondSIGTERMEndsAProgramThatOutlivesTheFirst(t *testing.T) {
	t.Parallel()
	e := startExec(t, runs(t), "signals")
	e.sees("ready")
	machines := sys.Descendants(e.cmd.Process.Pid)
	require.NotEmpty(t, machines)
	e.signal(unix.SIGTERM)
	e.sees("terminated")
	e.signal(unix.SIGTERM)
	e.ends(128 + int(unix.SIGTERM))
	requireGone(t, machines)
}

// requireGone waits until processes have ended.
func requireGone(t *testing.T, all []sys.Process) {
	t.Helper()
	for late := time.Now().Add(execWithin); ; runtime.Gosched() {
		alive := false
		for _, p := range all {
			now, ok := sys.LookupProcess(p.PID)
			alive = alive || ok && now.Name == p.Name && !now.Exiting
		}
		if !alive {
			return
		}
		require.True(t, time.Now().Before(late), "%v", all)
	}
}

// The kernel ends QEMU. The directory of the machine's record is removed by the next machine.
func TestAKilledExecLeavesNothing(t *testing.T) {
	t.Parallel()
	program := runs(t)
	e := startExec(t, program, "stubborn")
	e.sees("ready")
	machines := sys.Descendants(e.cmd.Process.Pid)
	require.NotEmpty(t, machines)
	e.signal(unix.SIGKILL)
	io.Copy(io.Discard, e.out)
	e.cmd.Wait()
	requireGone(t, machines)
	next := startExecFor(t, anyTarget, e.tmp, program, "pour", "1")
	require.Len(t, next.ends(0), 1)
}

func TestExecSaysHowItsGuestHasDied(t *testing.T) {
	t.Parallel()
	e := startExec(t, "sh", "-c", "echo now; echo last words >/dev/console; echo c >/proc/sysrq-trigger; sleep 1000")
	e.sees("now")
	e.fails("sysrq triggered crash", "last words") // the end of the console

	// The machine is lost.
	e = startExec(t, runs(t), "stubborn")
	e.sees("ready")
	for _, p := range sys.Descendants(e.cmd.Process.Pid) {
		require.NoError(t, unix.Kill(p.PID, unix.SIGKILL))
	}
	e.fails("QEMU ended: signal: killed")
}

func TestNoSpaceInTheGuestIsTheProgramsError(t *testing.T) {
	t.Parallel()
	e := startExec(t, "sh", "-c", "mkdir /small; mount -t tmpfs -o size=1m none /small; dd if=/dev/zero of=/small/full bs=65536 count=64; echo status $?; exit 3")
	require.Equal(t, "status 1\n", e.ends(3))
	require.Contains(t, e.said.String(), "no space left on device")
}

// A program of this host's architecture brings its libraries with it, if the host has them.
func TestExecNamesALibraryThatIsMissing(t *testing.T) {
	t.Parallel()
	host, err := ofArchitecture(runtime.GOARCH)
	require.NoError(t, err)
	dir := t.TempDir()
	program := filepath.Join(dir, "program")
	code, err := os.ReadFile("/usr/bin/dirname")
	require.NoError(t, err)
	require.Contains(t, string(code), "\x00libc.so.6\x00")
	code = bytes.ReplaceAll(code, []byte("\x00libc.so.6\x00"), []byte("\x00libq.so.6\x00"))
	require.NoError(t, os.WriteFile(program, code, 0o755))
	e := startExecFor(t, host.Name, t.TempDir(), program, "/a/b")
	require.Empty(t, e.ends(126))
	require.Contains(t, e.said.String(), program+" was not started: program "+program+": its libraries: ")
	require.Contains(t, e.said.String(), "libq.so.6")

	e = startExecFor(t, host.Name, t.TempDir(), "/usr/bin/dirname", "/a/b")
	require.Equal(t, "/a\n", e.ends(0))
}

func TestExecFollowsTheSizeOfTheTerminal(t *testing.T) {
	program := runs(t)
	startExec(t, "uname").ends(0) // there is a template now, or the machine boots within the time of a session
	s := startCommand(t, "exec", "-target", anyTarget, "-t", program, "terminal")
	resize := func(rows, columns uint16) {
		size := unix.Winsize{Row: rows, Col: columns}
		require.NoError(t, unix.IoctlSetWinsize(int(s.Tty().Fd()), unix.TIOCSWINSZ, &size))
	}
	s.sees(`size \d+ \d+\r\n`)
	resize(31, 101)
	s.sees(`size 31 101\r\n`)
	resize(17, 42)
	s.sees(`size 17 42\r\n`)
	s.types("typed\r")
	s.sees(`line typed\r\n`)
	s.types("\x04")
	s.sees("the end\r\n")
	s.ends(0)
}
