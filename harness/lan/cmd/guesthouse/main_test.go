package main

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"guesthouse.example/harness/harnesstest"
	"guesthouse.example/host/traffic"
)

// TestMain makes the test binary the command itself in a process that a test starts.
func TestMain(m *testing.M) {
	if os.Getenv("GUESTHOUSE_TEST_COMMAND") == "1" {
		main()
	}
	os.Exit(m.Run())
}

func command(t *testing.T, args ...string) *exec.Cmd {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	t.Cleanup(cancel)
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.CommandContext(ctx, self, args...)
	cmd.Env = append(os.Environ(), "GUESTHOUSE_TEST_COMMAND=1")
	return cmd
}

// running is a machine of run.
type running struct {
	cmd   *exec.Cmd
	input io.Closer
	ready string // the ready line
}

// run starts run and waits for its ready line.
func run(t *testing.T, args ...string) running {
	cmd := command(t, append([]string{"run"}, args...)...)
	input, err := cmd.StdinPipe()
	require.NoError(t, err)
	said, err := cmd.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	lines := bufio.NewScanner(said)
	var all bytes.Buffer
	for lines.Scan() {
		all.WriteString(lines.Text() + "\n")
		if bytes.Contains(lines.Bytes(), []byte(" ready in ")) {
			go io.Copy(io.Discard, said)
			return running{cmd, input, lines.Text()}
		}
	}
	t.Fatalf("run ended: %v\n%s", cmd.Wait(), &all)
	return running{}
}

// end ends the input, and with it the machine.
func (r running) end(t *testing.T) {
	require.NoError(t, r.input.Close())
	require.NoError(t, r.cmd.Wait())
}

// Run boots a machine behind a bad link, and other programs of the host reach its ports. The record repeats the machine
// with the same seed and faults.
func TestRunOnALan(t *testing.T) {
	const target = "arm64"
	harnesstest.Require(t, target)
	record := filepath.Join(t.TempDir(), "record")
	const words = "lan,loss=5%,delay=2ms±1ms,seed=7"
	frames := filepath.Join(t.TempDir(), "frames.pcapng")
	r := run(t, "-target", target, "-net", words, "-dir", record, "-capture", frames)
	port := regexp.MustCompile(`(udp|tcp) (127\.0\.0\.1:\d+) -> 4242`)
	found := port.FindAllStringSubmatch(r.ready, -1)
	require.Len(t, found, 2, r.ready)
	require.Contains(t, r.ready, "on a lan as guest: 02:67:c0:00:02:01, 192.0.2.1/24, 2001:db8::1/64; seed 7")
	for _, p := range found {
		dial := func(ctx context.Context, network string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, network, p[2])
		}
		require.NoError(t, traffic.Echo(t.Context(), dial, traffic.EchoConfig{Network: p[1], Resend: 20}), p[1])
	}
	r.end(t)
	captured, err := os.ReadFile(frames)
	require.NoError(t, err)
	recorded, err := os.ReadFile(filepath.Join(record, "net0.pcapng"))
	require.NoError(t, err)
	require.Equal(t, recorded, captured)
	require.Contains(t, string(captured), "lost")

	spec, err := os.ReadFile(filepath.Join(record, "spec.json"))
	require.NoError(t, err)
	require.Contains(t, string(spec), words)
	again := run(t, "-spec", filepath.Join(record, "spec.json"))
	require.Contains(t, again.ready, "seed 7")
	again.end(t)
}

func TestWrongNetworksSayWhatWouldBeRight(t *testing.T) {
	for words, says := range map[string]string{
		"wan":         `guesthouse: error: run: network "wan": unknown kind "wan": write lan, or lan and faults, as in lan,loss=5% (wrong usage; see -h)`,
		"lan,loss=5":  "not a percentage from 0% to 100%: write loss=5% (wrong usage; see -h)",
		"lan,speed=1": `unknown word "speed": the words are loss,`,
	} {
		out, err := command(t, "run", "-net", words).CombinedOutput()
		require.Error(t, err)
		require.Contains(t, string(out), says)
	}
	out, err := command(t, "run", "-net", "lan", "-outbound", "host").CombinedOutput()
	require.Error(t, err)
	require.Contains(t, string(out), "a machine with Spec.Net reaches the machines on its networks and nothing else")
}
