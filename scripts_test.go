package guesthouse

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// machine is a system as scripts/install-qemu.sh sees it: the commands in its
// PATH.
type machine struct {
	t   *testing.T
	bin string
}

func newMachine(t *testing.T) machine {
	m := machine{t, t.TempDir()}
	for _, tool := range []string{"sh", "awk", "env", "dirname"} {
		path, err := exec.LookPath(tool)
		require.NoError(t, err)
		require.NoError(t, os.Symlink(path, filepath.Join(m.bin, tool)))
	}
	// The list of targets is the command's own: these are its columns.
	m.has("guesthouse", `echo "TARGET MACHINE CPU QEMU PACKAGE KERNEL"
echo "x86 q35 qemu32 qemu-system-i386 qemu-system-x86 linux"
echo "x86_64 q35 qemu64 qemu-system-x86_64 qemu-system-x86 linux"
echo "arm64 virt cortex-a57 qemu-system-aarch64 qemu-system-arm linux"`)
	return m
}

// has gives the machine a command, as a shell script.
func (m machine) has(name, script string) {
	require.NoError(m.t, os.WriteFile(filepath.Join(m.bin, name), []byte("#!/bin/sh\n"+script+"\n"), 0o755))
}

// install runs the script and returns what it said.
func (m machine) install(targets ...string) (string, error) {
	cmd := exec.Command("/bin/sh", append([]string{"scripts/install-qemu.sh", "guesthouse"}, targets...)...)
	cmd.Env = []string{"PATH=" + m.bin}
	var said strings.Builder
	cmd.Stderr = &said
	err := cmd.Run()
	return said.String(), err
}

const (
	root   = "echo 0"
	user   = "echo 1000"
	aptGet = `echo "apt-get $*" >&2`
)

func TestQEMUThatIsThereIsLeftAlone(t *testing.T) {
	m := newMachine(t)
	m.has("qemu-system-x86_64", "")
	said, err := m.install("x86_64")
	require.NoError(t, err)
	require.Empty(t, said)
}

func TestMissingQEMUIsInstalled(t *testing.T) {
	m := newMachine(t)
	m.has("id", root)
	m.has("apt-get", aptGet)
	said, err := m.install()
	require.NoError(t, err)
	require.Regexp(t, `apt-get .* update\n(?s:.*)apt-get .* install --no-install-recommends qemu-system-x86 qemu-system-arm\n`, said)

	m.has("qemu-system-x86_64", "")
	m.has("qemu-system-i386", "")
	said, err = m.install()
	require.NoError(t, err)
	require.Regexp(t, `install --no-install-recommends qemu-system-arm\n`, said, "only what is missing")
}

func TestMissingQEMUIsInstalledWithSudo(t *testing.T) {
	m := newMachine(t)
	m.has("id", user)
	m.has("apt-get", aptGet)
	m.has("sudo", `echo "sudo $1" >&2; exec "$@"`)
	said, err := m.install("arm64")
	require.NoError(t, err)
	require.Regexp(t, `sudo apt-get\napt-get .* update\nsudo env\napt-get .* install --no-install-recommends qemu-system-arm\n`, said)
}

func TestWhereQEMUCannotBeInstalledTheErrorNamesThePackages(t *testing.T) {
	m := newMachine(t)
	said, err := m.install("arm64")
	require.Error(t, err)
	require.Equal(t, "error: QEMU is missing and this system has no apt-get: install your system's equivalent of the Debian packages qemu-system-arm\n", said)

	m.has("apt-get", aptGet)
	m.has("id", user)
	said, err = m.install("arm64")
	require.Error(t, err)
	require.Equal(t, "error: QEMU is missing: run as root: apt-get install --no-install-recommends qemu-system-arm\n", said, "nothing was tried")
}

func TestAnUnknownTargetInstallsNothing(t *testing.T) {
	m := newMachine(t)
	said, err := m.install("vax")
	require.Error(t, err)
	require.Equal(t, "error: unknown target 'vax': the targets are x86 x86_64 arm64 \n", said)
}
