package integration

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/gopacket/gopacket/pcapgo"
	"github.com/stretchr/testify/require"
)

// tsharkEnv makes tests read their captures with tshark, too. The nightly run sets it, because tshark and its
// libraries are 18 packages.
const tsharkEnv = "GUESTHOUSE_TEST_TSHARK"

// checkCapture reads a capture to its end, with tshark if tsharkEnv is set. tshark must print no warning.
func checkCapture(t *testing.T, file string) {
	t.Helper()
	content, err := os.ReadFile(file)
	require.NoError(t, err)
	frames, err := pcapgo.NewNgReader(bytes.NewReader(content), pcapgo.DefaultNgReaderOptions)
	require.NoError(t, err)
	count := 0
	for {
		_, _, err := frames.ReadPacketData()
		if err == io.EOF {
			break
		}
		require.NoError(t, err, "after %d frames", count)
		count++
	}
	require.NotZero(t, count)
	if os.Getenv(tsharkEnv) == "" {
		return
	}
	require.Len(t, tshark(t, "-r", file, "-T", "fields", "-e", "frame.number"), count)
}

// tshark returns the lines that tshark prints. It fails the test if tshark prints a warning.
func tshark(t *testing.T, args ...string) (lines []string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "tshark", append([]string{"-n"}, args...)...)
	cmd.Env = append(os.Environ(), "HOME="+t.TempDir()) // the user's configuration has no effect
	var warnings strings.Builder
	cmd.Stderr = &warnings
	out, err := cmd.Output()
	require.NoError(t, err, "tshark %q: %s", args, &warnings)
	for line := range strings.Lines(warnings.String()) {
		if !strings.HasPrefix(line, `Running as user "root"`) {
			t.Errorf("tshark %q: %s", args, line)
		}
	}
	for line := range strings.Lines(string(out)) {
		lines = append(lines, line)
	}
	return lines
}
