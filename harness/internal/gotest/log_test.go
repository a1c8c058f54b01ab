package gotest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// inputVariable makes this test binary the command of "go test -exec". Its value names a file on which the run
// depends.
const inputVariable = "GUESTHOUSE_TEST_INPUT"

func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == "as-exec" {
		os.Exit(asExec(os.Args[2], os.Args[3:]))
	}
	os.Exit(m.Run())
}

// asExec runs a test binary as guesthouse exec does, but on this host.
func asExec(binary string, args []string) int {
	dir, _ := os.Getwd()
	c, ok := Parse(dir, binary, args)
	if !ok {
		return 125
	}
	log := NewLog(c)
	log.Depends(os.Getenv(inputVariable))
	cmd := exec.Command(binary, append([]string{log.Arg}, args...)...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if cmd.Run() != nil {
		return 1
	}
	if err := log.Finish(); err != nil {
		fmt.Println("not cached:", err)
	}
	return 0
}

// It runs the real go command, because only its source says how it treats a log.
func TestTheGoCommandCachesARunUntilAnInputChanges(t *testing.T) {
	dir := t.TempDir()
	old := time.Now().Add(-time.Hour)
	write := func(name, text string) {
		path := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o777))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o666))
		old = old.Add(time.Second)
		require.NoError(t, os.Chtimes(path, old, old), "the go command trusts no file younger than two seconds")
	}
	write("m/go.mod", "module m\n\ngo 1.26\n")
	write("m/m_test.go", `package m

import (
	"os"
	"testing"
)

func TestM(t *testing.T) {
	os.Getenv("LOOKED_AT")
	if _, err := os.ReadFile("testdata/input"); err != nil {
		t.Fatal(err)
	}
}
`)
	write("m/testdata/input", "1")
	write("kernel", "1")
	self, err := os.Executable()
	require.NoError(t, err)
	variable := "1"
	run := func(flags ...string) (cached bool) {
		t.Helper()
		args := append([]string{"test", "-exec", "'" + self + "' as-exec"}, flags...)
		cmd := exec.CommandContext(t.Context(), "go", append(args, ".")...)
		cmd.Dir = filepath.Join(dir, "m")
		cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=", inputVariable+"="+filepath.Join(dir, "kernel"), "LOOKED_AT="+variable)
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, string(out))
		require.True(t, strings.HasPrefix(string(out), "ok "), string(out))
		return strings.Contains(string(out), "(cached)")
	}
	require.False(t, run())
	require.True(t, run())
	require.False(t, run("-count=1"))
	for name, change := range map[string]func(){
		"a file that the test reads":        func() { write("m/testdata/input", "2") },
		"a file outside the module":         func() { write("kernel", "2") },
		"a variable":                        func() { variable = "2" },
		"a file outside the module is gone": func() { require.NoError(t, os.Remove(filepath.Join(dir, "kernel"))) },
	} {
		change()
		require.False(t, run(), name)
		require.True(t, run(), name)
	}
}

func TestARunWhoseInputsChangeIsNotCached(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "go.mod"), []byte("module m\n"), 0o666))
	kernel := filepath.Join(dir, "kernel")
	require.NoError(t, os.WriteFile(kernel, []byte("1"), 0o666))
	c, ok := Parse(dir, filepath.Join(dir, "m.test"), []string{"-test.paniconexit0"})
	require.True(t, ok)
	log := NewLog(c)
	log.Depends(kernel)
	require.ErrorIs(t, log.Finish(), os.ErrNotExist, "the binary has written no log")
	require.NoError(t, os.WriteFile(filepath.Join(dir, guestLog), []byte("# test log\ngetenv X"), 0o666))
	require.ErrorContains(t, log.Finish(), "incomplete")
	require.NoError(t, os.WriteFile(filepath.Join(dir, guestLog), []byte("# test log\ngetenv X\n"), 0o666))
	require.NoError(t, os.WriteFile(kernel, []byte("22"), 0o666))
	require.ErrorContains(t, log.Finish(), kernel+" has changed during the test")
	require.NoFileExists(t, filepath.Join(dir, logName))

	for _, args := range [][]string{{"-test.v"}, {"-test.paniconexit0", "-test.testlogfile=x"}} {
		c, ok := Parse(dir, filepath.Join(dir, "m.test"), args)
		require.True(t, ok)
		require.Nil(t, NewLog(c), args)
	}
}
