package cli

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"guesthouse.example/harness/harnesstest"
)

// withReadOnlyCache runs the command with the user's cache mounted read-only, as in some CI jobs.
func withReadOnlyCache(t *testing.T, args ...string) (output string, err error) {
	base, err := os.UserCacheDir()
	require.NoError(t, err)
	gocache, err := exec.Command("go", "env", "GOCACHE").Output()
	require.NoError(t, err)
	elsewhere := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(elsewhere, "guesthouse"), 0o777))
	self, err := exec.LookPath("guesthouse") // that of testscript
	if err != nil {
		self = os.Args[0]
	}
	cmd := exec.Command("sh", append([]string{"-c",
		`mount --bind "$1" "$2" && mount -o remount,ro,bind "$2" && shift 2 && ! touch "$XDG_CACHE_HOME/guesthouse/file" 2>/dev/null && exec "$@"`,
		"sh", filepath.Join(base, "guesthouse"), filepath.Join(elsewhere, "guesthouse"), self}, args...)...)
	cmd.Env = append(os.Environ(), "XDG_CACHE_HOME="+elsewhere, "GOCACHE="+string(gocache[:len(gocache)-1]))
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}
	if id := os.Geteuid(); id != 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNS,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: id, HostID: id, Size: 1}}}
	}
	out, err := cmd.CombinedOutput()
	if errors.Is(err, unix.EPERM) {
		t.Skip("this user may not have a mount namespace: ", err)
	}
	return string(out), err
}

func TestAReadOnlyWarmCacheSuffices(t *testing.T) {
	harnesstest.Require(t, anyTarget)
	status, _, stderr := call(t, "build", "-target", anyTarget)
	require.Equal(t, 0, status, stderr)
	out, err := withReadOnlyCache(t, "run", "-target", anyTarget)
	require.NoError(t, err, out)
	require.Contains(t, out, "guesthouse: arm64 ready in ")
	require.Contains(t, out, "reboot: Power down")

	guest := filepath.Join(t.TempDir(), "main.go") // a guest that no cache has
	require.NoError(t, os.WriteFile(guest, fmt.Appendf(nil, "package main\n\nfunc main() { println(%q) }\n", guest), 0o666))
	out, err = withReadOnlyCache(t, "build", "-target", anyTarget, "-guest", guest)
	require.Error(t, err)
	require.Contains(t, out, "guesthouse: error: write cache ")
	require.Contains(t, out, ": read-only file system\nguesthouse: hint: make it writable, or name another directory with -cache DIR")
}
