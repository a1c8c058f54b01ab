package contexts

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"guesthouse.example/harness"
	targets "guesthouse.example/internal/target"
)

// qemu returns a program that does something in sh before it becomes the target's QEMU.
func qemu(t *testing.T, dir, before string) string {
	t.Helper()
	tg, err := targets.Lookup(target)
	require.NoError(t, err)
	binary, err := exec.LookPath(tg.QEMU)
	require.NoError(t, err)
	file := filepath.Join(dir, "qemu")
	require.NoError(t, os.WriteFile(file, []byte(fmt.Sprintf("#!/bin/sh\n%s\nexec '%s' \"$@\"\n", before, binary)), 0o755))
	return file
}

// withPid has a machine boot in a QEMU whose process number pidOf tells.
func withPid(t *testing.T, spec harness.Spec) harness.Spec {
	dir := t.TempDir()
	spec.QEMU = qemu(t, dir, fmt.Sprintf("echo $$ > '%s'", filepath.Join(dir, "pid")))
	return spec
}

func pidOf(t *testing.T, spec harness.Spec) (pid int) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(filepath.Dir(spec.QEMU), "pid"))
	require.NoError(t, err)
	_, err = fmt.Sscan(string(text), &pid)
	require.NoError(t, err)
	return pid
}
