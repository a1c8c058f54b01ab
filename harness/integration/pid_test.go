package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"guesthouse.example/harness"
	"guesthouse.example/internal/target"
)

// withPid has a machine boot in a QEMU whose process number pidOf tells.
func withPid(t *testing.T, spec harness.Spec) harness.Spec {
	t.Helper()
	tg, err := target.Lookup(spec.Target)
	require.NoError(t, err)
	qemu, err := exec.LookPath(tg.QEMU)
	require.NoError(t, err)
	dir := t.TempDir()
	spec.Cold, spec.QEMU = true, filepath.Join(dir, "qemu")
	script := fmt.Sprintf("#!/bin/sh\necho $$ > '%s'\nexec '%s' \"$@\"\n", filepath.Join(dir, "pid"), qemu)
	require.NoError(t, os.WriteFile(spec.QEMU, []byte(script), 0o755))
	return spec
}

func pidOf(t *testing.T, spec harness.Spec) int {
	t.Helper()
	return readPid(t, filepath.Join(filepath.Dir(spec.QEMU), "pid"))
}
