package harnesstest

import (
	"bufio"
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestALongBuildReportsItsDuration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var said bytes.Buffer
		stop := reportProgress(&said, "x86: building")
		time.Sleep(firstReport - 1)
		stop()
		require.Empty(t, said.String())

		stop = reportProgress(&said, "x86: building")
		time.Sleep(27 * time.Second)
		stop()
		require.Equal(t, `guesthouse: x86: building: 5 s
guesthouse: x86: building: 15 s
guesthouse: x86: building: 25 s
guesthouse: x86: building took 27 s
`, said.String())
	})
}

// The go command of this test waits at a FIFO until the inner test has reported how long its build
// has been running. So the report comes during the build and not after it.
func TestAFirstBuildReportsWhileItRuns(t *testing.T) {
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
