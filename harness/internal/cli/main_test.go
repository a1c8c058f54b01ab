package cli

import (
	"bytes"
	"encoding/json"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"guesthouse.example/harness"
	"guesthouse.example/harness/harnesstest"
	"guesthouse.example/harness/internal/baremetal"
)

// anyTarget is the target of the tests whose outcome does not depend on the target. It boots with the
// least work.
const anyTarget = "arm64"

// TestMain makes the test binary the command itself when it is called by its
// name, and one that panics when the machine is ready.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"guesthouse": func() { os.Exit(Main(nil)) },
		"guesthouse-that-panics": func() {
			os.Exit(guesthouse(os.Args[1:], os.Stdin, os.Stdout, panics{}))
		},
	})
}

// panics is a standard error whose Write panics.
type panics struct{}

func (panics) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte("ready in")) {
		panic("too much")
	}
	return os.Stderr.Write(p)
}

// TestScripts runs the files in testdata/script, which also document the
// command's output.
func TestScripts(t *testing.T) {
	harnesstest.Require(t, "x86_64")
	harnesstest.Require(t, anyTarget)
	dir, err := os.Getwd()
	require.NoError(t, err)
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			env.Setenv("MODULE", dir)
			self, err := exec.LookPath("guesthouse")
			if err != nil {
				return err
			}
			env.Setenv("GUESTHOUSE", self) // for scripts that change PATH
			// Building a guest needs what building anything in Go
			// needs.
			env.Setenv("HOME", os.Getenv("HOME"))
			env.Setenv("XDG_CACHE_HOME", os.Getenv("XDG_CACHE_HOME"))
			for _, name := range []string{"GOCACHE", "GOMODCACHE", "GOPROXY", "GOFLAGS"} {
				value, err := exec.Command("go", "env", name).Output()
				if err != nil {
					return err
				}
				env.Setenv(name, strings.TrimSpace(string(value)))
			}
			return nil
		},
	})
}

// call runs the command inside the test.
func call(t *testing.T, args ...string) (status int, stdout, stderr string) {
	null, err := os.Open(os.DevNull)
	require.NoError(t, err)
	defer null.Close()
	var out, errOut bytes.Buffer
	status = guesthouse(args, null, &out, &errOut)
	return status, out.String(), errOut.String()
}

func TestTrafficChecksAndLoadsAnEchoService(t *testing.T) {
	server, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer server.Close()
	go func() {
		for {
			conn, err := server.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				io.Copy(conn, conn)
			}()
		}
	}()
	address := server.Addr().String()

	status, stdout, stderr := call(t, "traffic", "tcp", address)
	require.Equal(t, 0, status, stderr)
	require.Equal(t, "tcp "+address+": every byte came back\n", stdout)

	status, stdout, stderr = call(t, "traffic", "-requests", "50", "-clients", "2", "tcp", address)
	require.Equal(t, 0, status, stderr)
	require.Contains(t, stdout, "tcp, 2 clients, window 1, 64 bytes: 50 sent, 50 received, 0 lost, 0 errors")

	status, stdout, stderr = call(t, "traffic", "-requests", "50", "-json", "tcp", address)
	require.Equal(t, 0, status, stderr)
	require.Contains(t, stdout, `"received":50`)

	status, stdout, stderr = call(t, "traffic", "-window", "4", "-bytes", "1400", "-no-half-close", "tcp", address)
	require.Equal(t, 0, status, stderr)
	require.Equal(t, "tcp "+address+": every byte came back\n", stdout)
	status, stdout, stderr = call(t, "traffic", "-load", "-window", "4", "-bytes", "1400", "-requests", "9", "tcp", address)
	require.Equal(t, 0, status, stderr)
	require.Contains(t, stdout, "tcp, 1 clients, window 4, 1400 bytes: 9 sent, 9 received")
}

// The service loses each long datagram once, and answers a half-close with bytes that nobody sent.
func TestTrafficAsksNoMoreThanAProfilePromises(t *testing.T) {
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { udp.Close() })
	go func() {
		buf := make([]byte, 1<<16)
		lost := make(map[string]bool)
		for {
			n, from, err := udp.ReadFrom(buf)
			if err != nil {
				return
			}
			if first := string(buf[:n]); n == 1400 && !lost[first] {
				lost[first] = true
				continue
			}
			udp.WriteTo(buf[:n], from)
		}
	}()
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { tcp.Close() })
	go func() {
		for {
			conn, err := tcp.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				io.Copy(conn, conn)
				conn.Write([]byte("after the half-close"))
			}()
		}
	}()
	address := tcp.Addr().String()
	status, _, stderr := call(t, "traffic", "tcp", address)
	require.Equal(t, 1, status)
	require.Contains(t, stderr, "bytes after the")
	status, stdout, stderr := call(t, "traffic", "-profile", "zephyr", "tcp", address)
	require.Equal(t, 0, status, stderr)
	require.Equal(t, "tcp "+address+": every byte came back\n", stdout)

	address = udp.LocalAddr().String()
	status, stdout, stderr = call(t, "traffic", "-profile", "zephyr", "-bytes", "1000", "udp", address)
	require.Equal(t, 0, status, stderr)
	require.Equal(t, "udp "+address+": every byte came back\n", stdout)
	status, _, stderr = call(t, "traffic", "-resend", "1", "-bytes", "1400", "-window", "22", "udp", address)
	require.Equal(t, 0, status, stderr)
}

// Writing to it may raise SIGPIPE, which ends a run only where its own output
// has lost its reader.
func TestTrafficSaysWhatIsWrongWithAService(t *testing.T) {
	server, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	go func() {
		conn, err := server.Accept()
		if err == nil {
			conn.Write([]byte("HTTP/1.1 400 Bad Request\r\n"))
			conn.Close()
		}
		server.Close()
	}()
	status, _, stderr := call(t, "traffic", "tcp", server.Addr().String())
	require.Equal(t, 1, status)
	require.Contains(t, stderr, "guesthouse: error: echo tcp: altered: stream differs at byte 0")
}

func TestARunWithoutQEMUSaysHowToInstallIt(t *testing.T) {
	harnesstest.Require(t, "x86_64")
	spec := harnesstest.Spec(t, "x86_64", "guesthouse.example/guest/cmd/uinit")
	file := filepath.Join(t.TempDir(), "spec.json")
	require.NoError(t, os.WriteFile(file, []byte(`{"target": "x86_64", "kernel": "`+spec.Kernel+`"}`), 0o644))
	t.Setenv("PATH", t.TempDir())
	status, _, stderr := call(t, "run", "-spec", file)
	require.Equal(t, statusOwn, status)
	require.Equal(t, `guesthouse: error: QEMU is missing: exec: "qemu-system-x86_64": executable file not found in $PATH
guesthouse: hint: install it with: apt-get install --no-install-recommends qemu-system-x86
`, stderr)
}

// A guest may be any file that QEMU boots, and run -spec repeats its run.
func TestRunBootsAGuestWithoutPackageGuest(t *testing.T) {
	t.Parallel()
	harnesstest.Require(t, anyTarget)
	dir := t.TempDir()
	guest, err := baremetal.ELF(anyTarget, "no kernel here")
	require.NoError(t, err)
	elf := filepath.Join(dir, "guest.elf")
	require.NoError(t, os.WriteFile(elf, guest, 0o644))
	record := filepath.Join(dir, "record")
	status, stdout, stderr := call(t, "run", "-target", anyTarget, "-guest", "none", "-kernel", elf, "-ready", "^no kernel here$", "-dir", record)
	require.Equal(t, 0, status, stderr)
	require.Contains(t, stdout, "no kernel here\n")
	require.Regexp(t, `^guesthouse: `+anyTarget+` ready in \d+\.\d\d s \(.*, (tcg|kvm): .*\); .*; the end of input ends\n$`, stderr)
	result, err := os.ReadFile(filepath.Join(record, "result.json"))
	require.NoError(t, err)
	require.Contains(t, string(result), `"state": "ended"`)

	status, stdout, stderr = call(t, "run", "-spec", filepath.Join(record, "spec.json"))
	require.Equal(t, 0, status, stderr)
	require.Contains(t, stdout, "no kernel here\n")
}

// The command that -n prints boots the machine without guesthouse.
func TestThePrintedCommandBoots(t *testing.T) {
	harnesstest.Require(t, anyTarget)
	disk := filepath.Join(t.TempDir(), "a, disk")
	content := append([]byte("from the host\n"), make([]byte, 1<<20)...)
	require.NoError(t, os.WriteFile(disk, content, 0o600))
	status, stdout, stderr := call(t, "run", "-target", anyTarget, "-cpus", "2", "-disk", disk, "-disk", "64", "-n")
	require.Equal(t, 0, status, stderr)
	qemu := exec.CommandContext(t.Context(), "sh", "-c", "exec "+stdout)
	console, err := qemu.StdoutPipe()
	require.NoError(t, err)
	keyboard, err := qemu.StdinPipe()
	require.NoError(t, err)
	require.NoError(t, qemu.Start())
	defer qemu.Process.Kill()
	var seen strings.Builder
	buf := make([]byte, 4096)
	sees := func(text string) {
		for !strings.Contains(seen.String(), text) {
			n, err := console.Read(buf)
			require.NoError(t, err, seen.String())
			seen.Write(buf[:n])
		}
		seen.Reset()
	}
	types := func(line string) {
		_, err = io.WriteString(keyboard, line+"\r")
		require.NoError(t, err)
	}
	sees("uart:~$ ")
	types("sh head -n 1 /dev/vda; echo changed >/dev/vda; echo $(cat /sys/block/vdb/size) sectors, $(grep -c ^processor /proc/cpuinfo) processors")
	sees("\nfrom the host\r\n131072 sectors, 2 processors\r\n")
	types("poweroff")
	io.Copy(io.Discard, console)
	require.NoError(t, qemu.Wait())
	after, err := os.ReadFile(disk)
	require.NoError(t, err)
	require.True(t, bytes.Equal(content, after), "the disk's file stays as it was")
}

// A user's own kernel boots with its own modules, without which it would have no
// network card.
func TestAUsersKernelIsBootedWithItsModules(t *testing.T) {
	harnesstest.Require(t, anyTarget)
	dir := t.TempDir()
	cached := harnesstest.Spec(t, anyTarget, "guesthouse.example/guest/cmd/uinit").Kernel
	kernel, modules, record := filepath.Join(dir, "mine"), filepath.Join(dir, "modules"), filepath.Join(dir, "record")
	require.NoError(t, os.Symlink(cached, kernel))
	require.NoError(t, os.Symlink(filepath.Join(filepath.Dir(cached), "modules"), modules))
	status, stdout, stderr := call(t, "run", "-target", anyTarget, "-kernel", kernel, "-modules", modules, "-dir", record)
	require.Equal(t, 0, status, stderr)
	require.Contains(t, stdout, "Single-threaded TCP/UDP echo server waits for a connection on port 4242")
	spec, err := harness.ReadSpec(filepath.Join(record, "spec.json"))
	require.NoError(t, err)
	require.Equal(t, kernel, spec.Kernel)
	result, err := os.ReadFile(filepath.Join(record, "result.json"))
	require.NoError(t, err)
	require.Contains(t, string(result), `"state": "ended"`)
}

// When the reader of the output closes it, run cleans up before it ends.
func TestARunWhoseOutputHasLostItsReaderLeavesNothing(t *testing.T) {
	harnesstest.Require(t, anyTarget)
	tmp := t.TempDir()
	run := exec.Command("sh", "-c", "exec 3<&0; { \"$0\" run -cold -target "+anyTarget+" <&3; echo status $? >&2; } | head -n 1", "guesthouse")
	path := filepath.Join(t.TempDir(), "guesthouse")
	self, err := os.Executable()
	require.NoError(t, err)
	require.NoError(t, os.Symlink(self, path))
	run.Args[3] = path
	run.Env = append(os.Environ(), "TMPDIR="+tmp)
	var said strings.Builder
	run.Stderr = &said
	held, err := run.StdinPipe()
	require.NoError(t, err)
	defer held.Close()
	_, err = run.Output()
	require.NoError(t, err)
	require.Contains(t, said.String(), "status 141", "128 and SIGPIPE")
	left, err := os.ReadDir(tmp)
	require.NoError(t, err)
	require.Empty(t, left)
}

// A run that cannot write its output ends at once, even if there is more input, and says why.
func TestARunWhoseOutputCannotBeWrittenFailsAtOnce(t *testing.T) {
	harnesstest.Require(t, anyTarget)
	self, err := os.Executable()
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "guesthouse")
	require.NoError(t, os.Symlink(self, path))
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	require.NoError(t, err)
	defer full.Close()

	run := exec.CommandContext(t.Context(), path, "run", "-target", anyTarget)
	run.Stdout = full
	var said strings.Builder
	run.Stderr = &said
	held, err := run.StdinPipe()
	require.NoError(t, err)
	defer held.Close()
	require.Error(t, run.Run())
	require.Regexp(t, `(?m)^guesthouse: error: standard output: write /dev/stdout: no space left on device\n\z`, said.String())

	run = exec.CommandContext(t.Context(), path, "run", "-target", anyTarget)
	run.Stderr = full
	held, err = run.StdinPipe()
	require.NoError(t, err)
	defer held.Close()
	require.Error(t, run.Run())
	require.Equal(t, statusOwn, run.ProcessState.ExitCode())
}

// The status of a machine that is lost is none that its program could have had.
func TestARunWhoseMachineIsKilledExitsWithAStatusOfItsOwn(t *testing.T) {
	t.Parallel()
	harnesstest.Require(t, anyTarget)
	self, err := os.Executable()
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "guesthouse")
	require.NoError(t, os.Symlink(self, path))
	record := filepath.Join(t.TempDir(), "record")
	run := exec.CommandContext(t.Context(), path, "run", "-target", anyTarget, "-dir", record)
	var said strings.Builder
	run.Stderr = &said
	input, err := run.StdinPipe()
	require.NoError(t, err)
	defer input.Close()
	require.NoError(t, run.Start())
	var result harness.Result
	require.Eventually(t, func() bool {
		text, err := os.ReadFile(filepath.Join(record, "result.json"))
		return err == nil && json.Unmarshal(text, &result) == nil && result.State == harness.StateReady
	}, time.Minute, 10*time.Millisecond)
	require.NoError(t, unix.Kill(result.PID, unix.SIGKILL))
	require.Error(t, run.Wait())
	require.Equal(t, statusOwn, run.ProcessState.ExitCode())
	require.Contains(t, said.String(), "guesthouse: error: QEMU ended: signal: killed")
}
