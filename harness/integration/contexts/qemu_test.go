package contexts

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	targets "guesthouse.example/internal/target"
)

// qemu returns a program that runs a shell command before it becomes the target's QEMU.
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
