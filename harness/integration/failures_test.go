package integration

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"guesthouse.example/harness"
	"guesthouse.example/harness/harnesstest"
	"guesthouse.example/internal/target"
)

// boot boots a machine, requires that the boot fails and returns the error.
func boot(t *testing.T, spec harness.Spec) *harness.BootError {
	t.Helper()
	spec.Dir = t.TempDir()
	_, err := harness.Boot(t.Context(), spec)
	var failed *harness.BootError
	require.ErrorAs(t, err, &failed)
	require.Equal(t, spec.Dir, failed.Dir)
	require.FileExists(t, filepath.Join(spec.Dir, "console.log"))
	require.Contains(t, failed.Error(), "guesthouse run -spec "+filepath.Join(spec.Dir, "spec.json"), "the error has the command that repeats the run")

	var result harness.Result
	text, err := os.ReadFile(filepath.Join(spec.Dir, "result.json"))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, &result))
	require.Equal(t, harness.StateFailed, result.State)
	require.NotEmpty(t, result.Error)
	require.Equal(t, sha256File(t, spec.Kernel), result.KernelSHA256)
	require.Equal(t, sha256File(t, spec.Initramfs), result.InitramfsSHA256)
	require.Equal(t, sha256File(t, spec.Program), result.ProgramSHA256)
	return failed
}

// sha256File returns a file's hash in hexadecimal, or "" if file is empty.
func sha256File(t *testing.T, file string) string {
	if file == "" {
		return ""
	}
	data, err := os.ReadFile(file)
	require.NoError(t, err)
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// failing returns the Spec of the guest that fails before it is ready, in the way that its
// argument names. It is delivered into a restored platform, and never saved.
func failing(t *testing.T, target, way string) harness.Spec {
	t.Helper()
	spec := harnesstest.Spec(t, target, "./guests/fails")
	spec.Args, spec.From = []string{way}, new(harness.TemplateCache)
	return spec
}

func TestABootErrorShowsThePanic(t *testing.T) {
	t.Parallel()
	target := oneTarget(t)
	err := boot(t, failing(t, target, "panic"))
	require.ErrorIs(t, err, harness.ErrGuest)
	require.ErrorContains(t, err, "the guest failed: panic: runtime error: index out of range [0] with length 0")
	require.Contains(t, strings.Join(err.Console, "\n"), "goroutine 1 [running]", "the trace is in the last lines")
}

func TestABootErrorShowsTheErrorOfTheGuestsSetup(t *testing.T) {
	t.Parallel()
	target := oneTarget(t)
	err := boot(t, failing(t, target, "error"))
	require.ErrorIs(t, err, harness.ErrGuest)
	require.ErrorContains(t, err, `its console has not shown "guesthouse: ready$": the guest failed: its program has ended: exit status 1: setup: no such sensor`)
	require.Contains(t, err.Error(), "<err> guesthouse: setup: no such sensor")
}

func TestABootErrorNamesTheSignalThatKilledTheProgram(t *testing.T) {
	t.Parallel()
	target := oneTarget(t)
	err := boot(t, failing(t, target, "killed"))
	require.ErrorIs(t, err, harness.ErrGuest)
	require.ErrorContains(t, err, "the guest failed: its program has ended: signal 9 (killed)")
	require.Contains(t, err.Error(), "init: /bin/uinit has ended: signal 9 (killed); the machine powers off")
}

func TestTheConsoleOfAProgramThatExitsBeforeMainIsComplete(t *testing.T) {
	t.Parallel()
	target := oneTarget(t)
	err := boot(t, failing(t, target, "init"))
	require.ErrorIs(t, err, harness.ErrGuest)
	require.ErrorContains(t, err, "the guest failed: its program has ended: exit status 3")
	require.Contains(t, err.Error(), "init: /bin/uinit has ended: exit status 3; the machine powers off")
	log, readErr := os.ReadFile(filepath.Join(err.Dir, "console.log"))
	require.NoError(t, readErr)
	for i := range 1000 {
		require.Contains(t, string(log), fmt.Sprintf("] word %d\n", i))
	}
}

// How much processor time an idle guest costs depends on the target.
func TestAGuestThatHangsFailsLongBeforeItsDeadline(t *testing.T) {
	t.Parallel()
	harnesstest.EachTarget(t, func(t *testing.T, target string) {
		spec := echoSpec(t, target)
		spec.Ready, spec.From = "never said", new(harness.TemplateCache)
		spec.ReadyWithin = 20 * time.Second
		err := boot(t, spec)
		require.ErrorIs(t, err, harness.ErrGuest)
		require.ErrorContains(t, err, `it hangs: it printed nothing and was mostly idle for 5s: its console has not shown "never said"`)
		require.Contains(t, strings.Join(err.Console, "\n"), "guesthouse: ready")
	})
}

func TestABootFailsIfTheGuestIsNotReadyInTime(t *testing.T) {
	t.Parallel()
	target := oneTarget(t)
	spec := failing(t, target, "hangs")
	spec.ReadyWithin = 5 * time.Second // a slow guest may reach the hang only after the deadline
	spec.Dir = t.TempDir()
	m, startErr := harness.Start(t.Context(), spec)
	require.NoError(t, startErr)
	defer m.Close()
	ctx, cancel := m.Within(t.Context(), 3*harnesstest.Within)
	defer cancel()
	_, startErr = m.Console().Expect(ctx, "waiting for what never comes")
	require.NoError(t, startErr)
	var err *harness.BootError
	require.ErrorAs(t, m.WaitReady(t.Context()), &err)
	require.ErrorIs(t, err, harness.ErrGuest)
	require.ErrorContains(t, err, `its console has not shown "guesthouse: ready$"`)
	require.Contains(t, strings.Join(err.Console, "\n"), "waiting for what never comes")
}

func TestABootFailsIfTheConsoleStaysSilent(t *testing.T) {
	t.Parallel()
	target := oneTarget(t)
	spec := echoSpec(t, target)
	spec.Initramfs, spec.Program = "", ""
	spec.Cmdline = []string{"loglevel=0 root=/dev/nowhere rootwait"} // the kernel waits for that disk, silently
	spec.FirstByteWithin = 5 * time.Second
	err := boot(t, spec)
	require.ErrorContains(t, err, "no byte on its console within 5s")
	require.NotErrorIs(t, err, harness.ErrGuest, "no output shows that a guest has run")
	require.Contains(t, err.Error(), "its console is empty")
}

func TestABootErrorShowsTheKernelPanic(t *testing.T) {
	t.Parallel()
	target := oneTarget(t)
	spec := echoSpec(t, target)
	spec.Initramfs, spec.Program = "", "" // the kernel finds no root file system
	err := boot(t, spec)
	require.ErrorIs(t, err, harness.ErrGuest)
	require.ErrorContains(t, err, "Kernel panic - not syncing: VFS: Unable to mount root fs")
}

func TestATruncatedKernelIsRefused(t *testing.T) {
	t.Parallel()
	harnesstest.EachTarget(t, func(t *testing.T, target string) {
		spec := echoSpec(t, target)
		whole, err := os.ReadFile(spec.Kernel)
		require.NoError(t, err)
		spec.Kernel = filepath.Join(t.TempDir(), "vmlinuz")
		require.NoError(t, os.WriteFile(spec.Kernel, whole[:len(whole)/2], 0o644))
		_, err = harness.Boot(t.Context(), spec)
		require.ErrorContains(t, err, "the file is cut short: its header promises")
	})
}

func TestAKernelOfAnotherTargetIsRefused(t *testing.T) {
	t.Parallel()
	harnesstest.EachTarget(t, func(t *testing.T, name string) {
		kernel := echoSpec(t, name).Kernel
		for _, other := range target.Names() {
			if other == name {
				continue
			}
			_, err := harness.Boot(t.Context(), harness.Spec{Target: other, Kernel: kernel})
			require.EqualError(t, err, "boot: kernel "+kernel+": this is an "+name+" kernel; the target is "+other)
		}
	})
}

// On a PC, QEMU refuses such a file. On an Arm board, QEMU runs any file.
func TestAFileThatIsNoKernelIsNotTheGuestsFault(t *testing.T) {
	t.Parallel()
	for target, says := range map[string]string{
		"x86_64": "QEMU did not start: QEMU ended: exit status 1",
		"arm64":  "no byte on its console within 3s",
	} {
		t.Run(target, func(t *testing.T) {
			harnesstest.Require(t, target)
			spec := harness.Spec{Target: target, Kernel: filepath.Join(t.TempDir(), "vmlinuz"), FirstByteWithin: 3 * time.Second}
			require.NoError(t, os.WriteFile(spec.Kernel, []byte("this is no kernel"), 0o644))
			err := boot(t, spec)
			require.NotErrorIs(t, err, harness.ErrGuest)
			require.ErrorContains(t, err.Err, says)
		})
	}
}

func TestABootErrorNamesTheMissingQEMU(t *testing.T) {
	t.Parallel()
	target := oneTarget(t)
	spec := echoSpec(t, target)
	spec.QEMU = "qemu-system-nowhere"
	_, err := harness.Boot(t.Context(), spec)
	var missing *harness.MissingQEMUError
	require.ErrorAs(t, err, &missing)
	require.ErrorContains(t, err, `"qemu-system-nowhere": executable file not found in $PATH`)
}

func TestABootErrorShowsWhyQEMURefusedItsArguments(t *testing.T) {
	t.Parallel()
	target := oneTarget(t)
	spec := echoSpec(t, target)
	spec.QEMUArgs = []string{"-device", "warp-drive"}
	err := boot(t, spec)
	require.ErrorContains(t, err, "QEMU did not start: QEMU ended: exit status 1")
	require.Contains(t, err.Stderr, "'warp-drive' is not a valid device model name")
}

func TestABootErrorNamesTheMissingModuleOrInterface(t *testing.T) {
	t.Parallel()
	target := oneTarget(t)
	spec := echoSpec(t, target)
	spec.Cmdline = []string{"module_blacklist=virtio_net"}
	err := boot(t, spec)
	require.ErrorContains(t, err, "its program has ended: exit status 1")
	require.Contains(t, err.Error(), "<err> guesthouse: kernel module virtio_net: operation not permitted")

	spec = harnesstest.BuiltInSpec(t, target, echoGuest) // without PCI, no program can be delivered either
	spec.Cmdline = []string{noPCI[target]}               // the kernel does not find the card
	err = boot(t, spec)
	require.ErrorContains(t, err, "its program has ended: exit status 1")
	require.Contains(t, err.Error(), "<err> guesthouse: interface eth0 is missing: no network card appeared within 5s of loading its driver; the interfaces are [lo]")
}

// noPCI is the kernel argument that hides the PCI bus of each target.
var noPCI = map[string]string{
	"x86":    "pci=off",
	"x86_64": "pci=off",
	"arm":    "initcall_blacklist=gen_pci_driver_init",
	"arm64":  "initcall_blacklist=gen_pci_driver_init",
}

func TestACancelledBootLeavesNothing(t *testing.T) {
	t.Parallel()
	target := oneTarget(t)
	spec := failing(t, target, "hangs")
	ctx, cancel := context.WithCancelCause(t.Context())
	m, err := harness.Start(ctx, spec)
	require.NoError(t, err)
	_, err = m.Console().Expect(t.Context(), "waiting for what never comes")
	require.NoError(t, err)
	cancel(errors.New("changed my mind"))
	require.ErrorContains(t, m.WaitReady(ctx), "changed my mind")
	require.NoError(t, m.Close())
	require.NoError(t, m.Close(), "Close may be called again")
	_, err = m.Console().Expect(t.Context(), "anything else")
	require.ErrorContains(t, err, "the console has ended")
}

func TestAKilledQEMUIsNotTheGuestsFault(t *testing.T) {
	t.Parallel()
	target := oneTarget(t)
	spec := echoSpec(t, target)
	spec.Dir = t.TempDir()
	m, err := harness.Boot(t.Context(), from(new(harness.TemplateCache), spec))
	require.NoError(t, err)
	defer m.Close()
	require.NoError(t, unix.Kill(m.Result().PID, unix.SIGKILL))
	err = m.Wait(t.Context())
	require.EqualError(t, err, "QEMU ended: signal: killed")
	require.NotErrorIs(t, err, harness.ErrGuest)
}

func TestTheNextBootRemovesTheRecordOfAKilledProcess(t *testing.T) {
	if spec := os.Getenv("GUESTHOUSE_TEST_SWEEP"); spec != "" {
		s, err := harness.ReadSpec(spec)
		require.NoError(t, err)
		m, err := harness.Boot(t.Context(), from(new(harness.TemplateCache), s))
		require.NoError(t, err)
		os.Stdout.WriteString(m.Dir() + "\n")
		io.Copy(io.Discard, os.Stdin) // until the test closes it or kills the process
		require.NoError(t, m.Close())
		return
	}
	t.Parallel()
	target := oneTarget(t)
	dir, temporary := t.TempDir(), t.TempDir()
	text, err := json.Marshal(echoSpec(t, target))
	require.NoError(t, err)
	spec := filepath.Join(dir, "spec.json")
	require.NoError(t, os.WriteFile(spec, text, 0o644))
	own := func() (owner *exec.Cmd, end io.Closer, record string) {
		owner = exec.Command(os.Args[0], "-test.run=^TestTheNextBootRemovesTheRecordOfAKilledProcess$")
		owner.Env = append(os.Environ(), "GUESTHOUSE_TEST_SWEEP="+spec, "TMPDIR="+temporary)
		owner.Stderr = os.Stderr
		end, err := owner.StdinPipe()
		require.NoError(t, err)
		out, err := owner.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, owner.Start())
		t.Cleanup(func() {
			owner.Process.Kill()
			owner.Wait()
		})
		line, err := bufio.NewReader(out).ReadString('\n')
		require.NoError(t, err, "%q", line)
		return owner, end, strings.TrimSpace(line)
	}

	killed, _, left := own()
	require.Equal(t, temporary, filepath.Dir(left))
	require.NoError(t, killed.Process.Kill())
	killed.Wait()
	require.FileExists(t, filepath.Join(left, "result.json"), "a killed process leaves its record")

	next, end, record := own()
	require.NoDirExists(t, left)
	require.DirExists(t, record)
	require.NoError(t, end.Close())
	require.NoError(t, next.Wait())
	entries, err := os.ReadDir(temporary)
	require.NoError(t, err)
	require.Empty(t, entries)
}
