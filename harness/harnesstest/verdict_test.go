package harnesstest

import (
	"bufio"
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"guesthouse.example/harness"
)

// onlyResult returns the result of the only record in a directory, of TestInner.
func onlyResult(t *testing.T, tmp string) (r harness.Result, dir string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(tmp, "TestInner-*", "result.json"))
	require.NoError(t, err)
	require.Len(t, files, 1)
	text, err := os.ReadFile(files[0])
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, &r))
	return r, filepath.Dir(files[0])
}

// Whoever finds a record sees whether its test passed, whatever the machine did.
func TestTheResultOfAMachineHasTheVerdictOfItsTest(t *testing.T) {
	Require(t, "arm64")
	for name, says := range map[string]string{
		"expect": `^the test failed: expect "never said": the console has ended`,
		"off":    "^the test failed: the machine powered off during the test",
		"crash":  "^the guest failed: .*sysrq triggered crash",
		"panic":  "^the test panicked$",
		"fail":   "^the test failed$",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tmp := t.TempDir()
			out, ok := run(t, name, []string{"TMPDIR=" + tmp})
			require.False(t, ok, out)
			result, dir := onlyResult(t, tmp)
			require.Equal(t, "failed", result.State)
			require.Regexp(t, says, result.Error)
			require.Equal(t, "TestInner", result.Test)
			require.NoFileExists(t, filepath.Join(dir, "result.json.new"))
		})
	}
	t.Run("pass", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		out, ok := run(t, "pass", nil, "-test.artifacts", "-test.outputdir", dir)
		require.True(t, ok, out)
		require.NotContains(t, out, "go test -timeout")
		files, err := filepath.Glob(filepath.Join(dir, "_artifacts", "*", "TestInner-*", "result.json"))
		require.NoError(t, err)
		require.Len(t, files, 1, out)
		text, err := os.ReadFile(files[0])
		require.NoError(t, err)
		require.Contains(t, string(text), `"state": "ended"`)
	})
}

// Package testing ends with the stacks of all goroutines. Before that the test's machine and its
// record are named.
func TestATimeoutNamesTheRecord(t *testing.T) {
	Require(t, "arm64")
	tmp := t.TempDir()
	out, ok := run(t, "timeout", []string{"TMPDIR=" + tmp}, "-test.timeout=15s")
	require.False(t, ok, out)
	said, _, panicked := strings.Cut(out, "panic: test timed out after 15s")
	require.True(t, panicked, out)
	result, dir := onlyResult(t, tmp)
	require.Regexp(t, `(?m)^guesthouse: go test -timeout ends TestInner: its machine, arm64, is (booting|ready); its console:$`, said)
	require.Contains(t, said, "\nrecord: "+dir+"\nrepeat: go run ")
	require.Equal(t, "failed", result.State)
	require.Equal(t, "go test -timeout ended the test", result.Error)
}

// limited is a test with a timeout.
type limited struct {
	testing.TB
	deadline time.Time
}

func (l limited) Deadline() (time.Time, bool) { return l.deadline, !l.deadline.IsZero() }

func TestATestIsWarnedShortlyBeforeItsDeadline(t *testing.T) {
	for within, at := range map[time.Duration]time.Duration{
		time.Minute: 59 * time.Second, 5 * time.Second: 4500 * time.Millisecond,
	} {
		synctest.Test(t, func(t *testing.T) {
			began := time.Now()
			warned := make(chan time.Duration, 1)
			beforeDeadline(limited{t, began.Add(within)}, func() { warned <- time.Since(began) })
			require.Equal(t, at, <-warned)
		})
	}
	synctest.Test(t, func(t *testing.T) {
		never := func() { t.Error("it ended in time, or has no deadline") }
		began := time.Now()
		stop := beforeDeadline(limited{t, began.Add(time.Minute)}, never)
		beforeDeadline(limited{t, time.Time{}}, never)
		time.Sleep(58 * time.Second)
		stop()
		time.Sleep(time.Minute)
		synctest.Wait()
	})
}

func TestABuildThatTakesLongSaysThatItGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var said bytes.Buffer
		stop := progress(&said, "x86: building")
		time.Sleep(silentFor - 1)
		stop()
		require.Empty(t, said.String())

		stop = progress(&said, "x86: building")
		time.Sleep(27 * time.Second)
		stop()
		require.Equal(t, `guesthouse: x86: building: 5 s
guesthouse: x86: building: 15 s
guesthouse: x86: building: 25 s
guesthouse: x86: building took 27 s
`, said.String())
	})
}

// The go command of this test waits in a pipe until the inner test has said that its build
// goes on: so it says so while it builds.
func TestAFirstBuildIsHeardWhileItBuilds(t *testing.T) {
	Require(t, "arm64")
	real, err := exec.LookPath("go")
	require.NoError(t, err)
	bin := t.TempDir()
	fifo := filepath.Join(bin, "fifo")
	require.NoError(t, exec.Command("mkfifo", fifo).Run())
	require.NoError(t, os.WriteFile(filepath.Join(bin, "go"), []byte("#!/bin/sh\nread -r go <"+fifo+"\nexec "+real+` "$@"`+"\n"), 0o777))
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.v", "-test.run=^TestInner$")
	cmd.Env = append(os.Environ(), "GUESTHOUSE_TEST_INNER=only build", "PATH="+bin+":"+os.Getenv("PATH"))
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	cmd.Stderr = cmd.Stdout
	require.NoError(t, cmd.Start())
	lines := bufio.NewScanner(out)
	var said []string
	for lines.Scan() {
		said = append(said, lines.Text())
		if lines.Text() == "guesthouse: arm64: building the guest "+echoGuest+": 5 s" {
			require.NoError(t, os.WriteFile(fifo, []byte("go\n"), 0))
		}
	}
	require.NoError(t, cmd.Wait(), said)
	require.Regexp(t, "guesthouse: arm64: building the guest "+echoGuest+" took [0-9]+ s", strings.Join(said, "\n"))
}
