package cli

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"guesthouse.example/harness/harnesstest"
	"guesthouse.example/internal/target"
)

// The scenarios are examples, too.
const scenarios = "../../integration/scenarios"

// check runs guesthouse check and returns its output and exit status.
func check(t *testing.T, args ...string) (out string, status int) {
	t.Helper()
	var said bytes.Buffer
	status = guesthouse(append([]string{"check"}, args...), os.Stdin, &said, &said)
	return said.String(), status
}

func TestTheScenariosPass(t *testing.T) {
	harnesstest.Require(t, anyTarget)
	t.Parallel()
	junit := filepath.Join(t.TempDir(), "junit.xml")
	out, status := check(t, "-target", anyTarget, "-junit", junit, scenarios, "../../harnesstest/example")
	require.Zero(t, status, out)
	xml, err := os.ReadFile(junit)
	require.NoError(t, err)
	require.Contains(t, string(xml), `<testcase classname="`+scenarios+` [arm64]" name="echo"`)
	require.NotContains(t, string(xml), "<failure")
}

func TestAScenarioRunsOnEveryTarget(t *testing.T) {
	for _, name := range target.Names() {
		harnesstest.Require(t, name)
	}
	t.Parallel()
	out, status := check(t, "-target", "all", filepath.Join(scenarios, "echo.txtar"))
	require.Zero(t, status, out)
	for _, name := range target.Names() {
		require.Contains(t, out, "ok  \t"+scenarios+" ["+name+"]")
	}
}

// write writes scenarios into a directory, which it returns.
func write(t *testing.T, files map[string]string) string {
	dir := t.TempDir()
	for name, text := range files {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o666))
	}
	return dir
}

func TestAFailedScenarioShowsItsMachines(t *testing.T) {
	harnesstest.Require(t, anyTarget)
	t.Setenv("TMPDIR", t.TempDir()) // for the records
	out, status := check(t, "-target", anyTarget, "testdata/check")
	require.Equal(t, 1, status, out)
	require.Contains(t, out, "pattern.txtar:2: expect -within 100ms 'server waits for a connection on port 4243': expect")
	require.Contains(t, out, `the pattern matches it up to "server waits for a connection on port 424"`)
	require.Contains(t, out, "machine main: the machine powered off during the test, without a call of Shutdown or Wait: the command poweroff on the console (exit status 0)")
	require.Contains(t, out, "port.txtar:2: ! http GET :4343/: the machine has no port tcp/4343, only udp/4242, tcp/4242: add -port tcp/4343 to its boot")
	require.Contains(t, out, "reboot: Power down")
	require.Equal(t, 3, strings.Count(out, "record: "), "each failed scenario leaves the record of its machine")
	require.Contains(t, out, "tests: 1 passed, 3 failed, 0 skipped")
	require.NotContains(t, out, "--- PASS", "without -v")
}

func TestShardsRunEachScenarioOnce(t *testing.T) {
	files := make(map[string]string)
	for i := range 7 {
		files[fmt.Sprintf("s%d.txtar", i)] = "skip\n"
	}
	dir := write(t, files)
	all := ""
	for i := range 3 {
		out, status := check(t, "-v", "-shard", fmt.Sprintf("%d/3", i+1), dir)
		require.Zero(t, status, out)
		require.Contains(t, out, "SKIP")
		all += out
	}
	for i := range 7 {
		require.Equal(t, 1, strings.Count(all, fmt.Sprintf("=== RUN   s%d\n", i)))
	}
}

func TestAWrongBootIsNoFailureThatAScenarioExpects(t *testing.T) {
	for line, want := range map[string]string{
		"! boot -nonsense":                           "flag provided but not defined: -nonsense",
		"! boot -target arm65":                       `unknown target "arm65"`,
		"! boot image.elf":                           "name its board with -board",
		"! boot -initramfs x":                        "-initramfs needs -kernel FILE",
		"! boot -guest none":                         "-guest none needs -kernel FILE",
		"! boot -initramfs x -kernel ./k -guest ./g": "boot: -guest has no effect together with -initramfs",
		"! boot -port tcp/x":                         "tcp/x",
		"! boot -board none/such x":                  `unknown board "none/such"`,
	} {
		out, status := check(t, write(t, map[string]string{"a.txtar": line + "\n"}))
		require.Equal(t, 1, status, "%s: %s", line, out)
		require.Contains(t, out, want, line)
	}
}

// The image is the last argument of boot.
func TestArgumentsOfBootComeFromTheCommandLineToo(t *testing.T) {
	dir := write(t, map[string]string{"a.txtar": "boot -port udp/4242\n"})
	out, status := check(t, "-boot=-board=none/such", "-boot=image.elf", dir)
	require.Equal(t, 1, status)
	require.Contains(t, out, `unknown board "none/such"`)
}

func TestAWrongCheckLineIsRefused(t *testing.T) {
	dir := write(t, map[string]string{"a.txtar": "stop\n", "b.txt": ""})
	for line, want := range map[string]string{
		"-shard 0/2":           "-shard 0/2: want I/N, such as 1/4, with I from 1 to N",
		"-shard 1":             "-shard 1: want I/N",
		"-run (":               "-run: error parsing regexp",
		"-target arm65":        `unknown target "arm65"`,
		"-update -target all":  "-update works with one target",
		dir + "/b.txt":         "b.txt: the name of a scenario ends with .txtar",
		dir + "/missing.txtar": "missing.txtar: no such file or directory",
		"-run nothing " + dir:  "check: no scenario in " + dir + " matches -run nothing",
		t.TempDir():            "no scenario: want files NAME.txtar in ",
		"-target arm,arm":      "the target arm is there twice",
	} {
		out, status := check(t, strings.Fields(line)...)
		require.NotZero(t, status, line)
		require.Contains(t, out, want, line)
	}
}
