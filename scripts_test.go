package guesthouse

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"guesthouse.example/internal/target"
)

// machine is a system as scripts/install-qemu.sh sees it: the commands in its
// PATH.
type machine struct {
	t   *testing.T
	bin string
}

func newMachine(t *testing.T) machine {
	m := machine{t, t.TempDir()}
	for _, tool := range []string{"sh", "awk", "env", "dirname", "mktemp", "cat", "rm", "sleep"} {
		path, err := exec.LookPath(tool)
		require.NoError(t, err)
		require.NoError(t, os.Symlink(path, filepath.Join(m.bin, tool)))
	}
	m.has("guesthouse", `echo "guesthouse $*" >>"$CALLS"; [ "$1" != build ] || eval "$BUILD"`)
	m.has("compile", `echo "compile $*" >>"$CALLS"; eval "$COMPILE"`)
	return m
}

// has gives the machine a command, as a shell script.
func (m machine) has(name, script string) {
	require.NoError(m.t, os.WriteFile(filepath.Join(m.bin, name), []byte("#!/bin/sh\n"+script+"\n"), 0o755))
}

// install runs the script and returns what it said and which programs it called.
func (m machine) install(targets ...string) (said, calls string, err error) {
	return m.installWhile("", "", targets...)
}

// installWhile is like install. The builds of guesthouse and of the images run shell scripts.
func (m machine) installWhile(compile, build string, targets ...string) (said, calls string, err error) {
	cmd := exec.Command("/bin/sh", append([]string{"scripts/install-qemu.sh", "compile guesthouse", "guesthouse"}, targets...)...)
	list := filepath.Join(m.t.TempDir(), "calls")
	cmd.Env = []string{"PATH=" + m.bin, "CALLS=" + list, "COMPILE=" + compile, "BUILD=" + build, "TMPDIR=" + m.t.TempDir()}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	err = cmd.Run() // waits until no process holds stderr open
	text, readErr := os.ReadFile(list)
	if !errors.Is(readErr, os.ErrNotExist) {
		require.NoError(m.t, readErr)
	}
	return stderr.String(), string(text), err
}

const (
	root   = "echo 0"
	user   = "echo 1000"
	aptGet = `echo "apt-get $*" >>"$CALLS"`
)

func TestQEMUThatIsThereIsLeftAlone(t *testing.T) {
	m := newMachine(t)
	m.has("qemu-system-x86_64", "")
	said, calls, err := m.install("x86_64")
	require.NoError(t, err)
	require.Empty(t, said)
	require.Equal(t, "compile guesthouse\n", calls)
}

func TestTheInstallationKnowsThePackageOfEveryTarget(t *testing.T) {
	for _, row := range target.All() {
		m := newMachine(t)
		m.has("id", root)
		m.has("apt-get", aptGet)
		said, _, err := m.install(row.Name)
		require.NoError(t, err)
		require.Equal(t, "installing "+row.QEMUPackage+"\n", said)
		m.has(row.QEMU, "")
		said, _, err = m.install(row.Name)
		require.NoError(t, err)
		require.Empty(t, said)
	}
}

func TestMissingQEMUIsInstalledWhileTheImagesAreBuilt(t *testing.T) {
	m := newMachine(t)
	m.has("id", root)
	m.has("apt-get", aptGet)
	said, calls, err := m.install()
	require.NoError(t, err)
	require.Equal(t, "installing qemu-system-x86 qemu-system-arm\n", said)
	require.Regexp(t, `apt-get .* update\n(?s:.*)apt-get .* install --no-install-recommends qemu-system-x86 qemu-system-arm\n`, calls)
	require.Regexp(t, `compile guesthouse\n(?s:.*)guesthouse build -target all\n`, calls)

	m.has("qemu-system-x86_64", "")
	m.has("qemu-system-i386", "")
	_, calls, err = m.install()
	require.NoError(t, err)
	require.Regexp(t, `install --no-install-recommends qemu-system-arm\n`, calls, "only what is missing")

	_, calls, err = m.install("arm64")
	require.NoError(t, err)
	require.Contains(t, calls, "guesthouse build -target arm64\n")
	require.Regexp(t, `install .*\n(?s:.*)guesthouse doctor -target arm64\n`, calls, "QEMU is there when KVM is probed")
}

func TestMissingQEMUIsInstalledWithSudo(t *testing.T) {
	m := newMachine(t)
	m.has("id", user)
	m.has("apt-get", aptGet)
	m.has("sudo", `echo "sudo $1" >>"$CALLS"; exec "$@"`)
	_, calls, err := m.install("arm64")
	require.NoError(t, err)
	require.Regexp(t, `sudo apt-get\n(?s:.*)apt-get .* update\n(?s:.*)sudo env\n(?s:.*)apt-get .* install --no-install-recommends qemu-system-arm\n`, calls)
}

// The installation waits for a build to begin, and the build would not end by itself.
func TestAFailedInstallationEndsTheBuild(t *testing.T) {
	for _, hanging := range []struct{ compile, build, begun string }{
		{"exec sleep 1000", "", "compile guesthouse"}, {"", "exec sleep 1000", "guesthouse build"},
	} {
		m := newMachine(t)
		m.has("id", root)
		m.has("apt-get", `case "$*" in *install*)
	while case "$(cat "$CALLS")" in *"`+hanging.begun+`"*) false;; esac; do sleep 0.01; done
	echo "E: unmet dependencies" >&2; exit 100;; esac`)
		said, _, err := m.installWhile(hanging.compile, hanging.build, "arm64")
		require.Error(t, err)
		require.Equal(t, "installing qemu-system-arm\nE: unmet dependencies\n"+
			"error: QEMU is missing, and apt-get could not install qemu-system-arm\n", said)
	}
}

func TestAFailedBuildFailsAfterTheInstallation(t *testing.T) {
	m := newMachine(t)
	m.has("id", root)
	m.has("apt-get", aptGet)
	for _, broken := range []struct{ compile, build string }{{"echo broken >&2; exit 3", ""}, {"", "echo broken >&2; exit 3"}} {
		said, calls, err := m.installWhile(broken.compile, broken.build, "arm64")
		var exit *exec.ExitError
		require.ErrorAs(t, err, &exit)
		require.Equal(t, 3, exit.ExitCode())
		require.Contains(t, said, "broken\n")
		require.Contains(t, calls, "install --no-install-recommends qemu-system-arm\n", "dpkg is not interrupted")
		require.Equal(t, broken.build != "", strings.Contains(calls, "guesthouse build"))
	}
}

func TestWhereQEMUCannotBeInstalledTheErrorNamesThePackages(t *testing.T) {
	m := newMachine(t)
	said, _, err := m.install("arm64")
	require.Error(t, err)
	require.Equal(t, "error: QEMU is missing and this system has no apt-get: install your system's equivalent of the Debian packages qemu-system-arm\n", said)

	m.has("apt-get", aptGet)
	m.has("id", user)
	said, _, err = m.install("arm64")
	require.Error(t, err)
	require.Equal(t, "error: QEMU is missing: run as root: apt-get install --no-install-recommends qemu-system-arm\n", said, "nothing was tried")
}

func TestAnUnknownTargetInstallsNothing(t *testing.T) {
	m := newMachine(t)
	said, _, err := m.install("vax")
	require.Error(t, err)
	require.Equal(t, "error: unknown target 'vax': the targets are x86 x86_64 arm arm64\n", said)
}

// The comment of the recipe promises every fuzz target.
func TestTheNightlyRunsEveryFuzzTarget(t *testing.T) {
	_, nightly, ok := strings.Cut(read(t, "Makefile"), "\nnightly: ")
	require.True(t, ok)
	nightly, _, _ = strings.Cut(nightly, "\n\n")
	out, err := exec.Command("git", "grep", "-h", "-o", "^func Fuzz[A-Za-z]*", "--", "*_test.go").Output()
	require.NoError(t, err)
	targets := strings.Fields(strings.ReplaceAll(string(out), "func ", ""))
	require.NotEmpty(t, targets)
	for _, target := range targets {
		require.Contains(t, nightly, " -fuzz "+target+" ")
	}
}
