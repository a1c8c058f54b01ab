// Package integration tests guesthouse on real QEMU with real kernels. A test runs on every target
// if its outcome depends on the target, and otherwise on one.
package integration

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"guesthouse.example/harness"
	"guesthouse.example/harness/harnesstest"
	"guesthouse.example/host/traffic"
	"guesthouse.example/internal/sys"
)

// TestMain fails the run if a machine outlives the test that booted it.
func TestMain(m *testing.M) {
	code := m.Run()
	harnesstest.EndPrefetched()
	if dir, err := platforms(); err == nil {
		os.RemoveAll(dir)
	}
	if left := sys.Children(os.Getpid()); len(left) > 0 {
		fmt.Fprintf(os.Stderr, "processes left behind: %v\n", left)
		code = 1
	}
	os.Exit(code)
}

const (
	echoGuest = "guesthouse.example/guest/cmd/uinit"
	echoPort  = 4242
)

// oneTarget returns the target of a test whose outcome does not depend on the target: the
// first one that GUESTHOUSE_TARGETS selects, or arm64, which boots with the least work.
func oneTarget(t *testing.T) string {
	t.Helper()
	first, _, _ := strings.Cut(os.Getenv("GUESTHOUSE_TARGETS"), ",")
	name := cmp.Or(first, "arm64")
	harnesstest.Require(t, name)
	return name
}

// eachWordSize runs f as one subtest for each target, where the outcome depends on no more than the processor's
// family and word size: on those that GUESTHOUSE_TARGETS selects, or on one of each family and size.
func eachWordSize(t *testing.T, f func(t *testing.T, target string)) {
	t.Helper()
	for _, name := range strings.Split(cmp.Or(os.Getenv("GUESTHOUSE_TARGETS"), "x86,arm64"), ",") {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			harnesstest.Require(t, name)
			f(t, name)
		})
	}
}

// echoSpec returns the Spec of a machine that runs the echo service.
func echoSpec(t *testing.T, target string) harness.Spec {
	spec := harnesstest.Spec(t, target, echoGuest)
	spec.Ports = []string{"udp/4242", "tcp/4242"}
	return spec
}

// dial returns how package traffic dials the machine's echo service.
func dial(m *harnesstest.Machine) traffic.DialFunc {
	return func(ctx context.Context, network string) (net.Conn, error) {
		return m.Machine.Dial(ctx, network, echoPort)
	}
}

func TestTheEchoServiceReturnsEveryByte(t *testing.T) {
	t.Parallel()
	harnesstest.EachTarget(t, func(t *testing.T, target string) {
		m := harnesstest.Boot(t, echoSpec(t, target))
		m.Expect(`<inf> net_echo_server_svc_sample: Single-threaded TCP/UDP echo server waits for a connection on port 4242`)
		ctx, cancel := context.WithTimeout(t.Context(), 4*harnesstest.Within)
		defer cancel()

		payloads := append(traffic.Payloads(1), traffic.Bytes(2, 1472))
		require.NoError(t, traffic.Echo(ctx, dial(m), traffic.EchoConfig{Network: "udp", Payloads: payloads, Window: 1}),
			"one at a time")
		require.NoError(t, traffic.Echo(ctx, dial(m), traffic.EchoConfig{Network: "udp", Payloads: payloads, Window: 16}),
			"many in flight")
		require.NoError(t, traffic.Echo(ctx, dial(m), traffic.EchoConfig{Network: "tcp", Payloads: payloads}),
			"a stream of all payloads, half-closed at its end")
		require.NoError(t, traffic.Echo(ctx, dial(m), traffic.EchoConfig{
			Network: "tcp", Payloads: [][]byte{traffic.Bytes(3, 64<<10)}, Window: 1,
		}), "64 KiB at once, half-closed while they are on their way")

		m.Expect(`<inf> net_echo_server_svc_sample: Connection from ::ffff:192\.0\.2\.2 \(\d+\)`)
		m.Expect(`<inf> net_echo_server_svc_sample: Connection from ::ffff:192\.0\.2\.2 closed`)

		result, err := traffic.Load(ctx, dial(m), traffic.LoadConfig{Network: "udp", Clients: 8, Window: 2, Requests: 500, Timeout: 2 * time.Second})
		require.NoError(t, err)
		require.EqualValues(t, 500, result.Sent)
		require.GreaterOrEqual(t, result.Received, int64(475), "a busy host may drop some of the datagrams")
		require.EqualValues(t, 500, result.Received+result.Lost)
		t.Log(result)
		result, err = traffic.Load(ctx, dial(m), traffic.LoadConfig{Network: "tcp", Clients: 8, Window: 2, Requests: 500})
		require.NoError(t, err)
		require.EqualValues(t, 500, result.Received)
		t.Log(result)
		m.Shutdown()
	})
}

func TestAClientBeyondTheCapacityIsRefused(t *testing.T) {
	t.Parallel()
	target := oneTarget(t)
	m := harnesstest.Boot(t, echoSpec(t, target))
	const capacity = 17 // as in Zephyr's sample
	var clients []net.Conn
	for i := range capacity {
		conn := m.Dial("tcp", echoPort)
		clients = append(clients, conn)
		echoes(t, conn, fmt.Sprintf("client %d", i))
	}
	over := m.Dial("tcp", echoPort)
	_, err := over.Read(make([]byte, 1))
	require.Error(t, err, "the guest closes the connection")
	require.False(t, os.IsTimeout(err), "the guest, not the deadline, ends the read")
	m.Expect(`<\w+> net_echo_server_svc_sample: Max capacity reached`)
	for i, conn := range clients {
		echoes(t, conn, fmt.Sprintf("client %d goes on", i))
	}

	require.NoError(t, clients[0].Close())
	m.Expect(`Connection from \S+ closed`)
	echoes(t, m.Dial("tcp", echoPort), "the freed slot is reused")
}

// echoes sends text and reads it back.
func echoes(t *testing.T, conn net.Conn, text string) {
	t.Helper()
	_, err := conn.Write([]byte(text))
	require.NoError(t, err)
	got := make([]byte, len(text))
	for n := 0; n < len(got); {
		more, err := conn.Read(got[n:])
		require.NoError(t, err, "after %d of %d bytes", n, len(got))
		n += more
	}
	require.Equal(t, text, string(got))
}

func TestTheShellRunsCommands(t *testing.T) {
	t.Parallel()
	harnesstest.EachTarget(t, func(t *testing.T, target string) {
		m := harnesstest.Boot(t, echoSpec(t, target))
		// The terminal would show a command that is typed before the prompt above the prompt.
		command := func(line string) {
			m.Expect(`uart:~\$ `)
			m.Send(line)
		}

		command("help")
		m.Expect(`(?s)net sockets.*poweroff`)

		command("net sockets")
		m.Expect(`service_udp\s+1 socket of 1\s+fd \d+`)
		m.Expect(`service_accept\s+1 socket of 1\s+fd \d+`)
		m.Expect(`service_tcp\s+0 sockets of 17`)
		m.Expect(`\b3 services`)

		command("net iface")
		m.Expect(`eth0\s+up\S*\s+mtu 1500`)
		m.Expect(`192\.0\.2\.1/24`)
		m.Expect(`2001:db8::1/64`)

		command("uptime")
		m.Expect(`Uptime: [1-9]\d* ms`)

		command("net nonsense")
		m.Expect(`net nonsense: command not found; help lists the commands`)

		command("sh uname -m")
		m.Expect(map[string]string{"x86": "i686", "x86_64": "x86_64", "arm": "armv7l", "arm64": "aarch64"}[target])
		command("sh cat /proc/sys/kernel/printk")
		m.Expect(`\b4\s+\d+\s+\d+\s+\d+`) // the level of "quiet"
		command("sh")
		m.Expect(`(?:^|uart:~\$ )\$ `)
		m.Send("echo six times seven is $((6 * 7))")
		m.Expect(`six times seven is 42`)
		m.Send("exit")

		command("sh echo $((1 + 1)) begun; sleep 1000")
		m.Expect(`2 begun`)
		m.Send("\x03") // Ctrl-C reaches the foreground program
		command("uptime")
		m.Expect(`Uptime: `)

		command("poweroff")
		m.Wait()
		require.Equal(t, "the command poweroff on the console", m.Result().PowerOff)
	})
}

// If the prompt came after the echo of the typed command, it would be in front of the answer.
func TestAReadyMachineAnswersBelowItsPrompt(t *testing.T) {
	t.Parallel()
	target := oneTarget(t)
	for boot, source := range map[string]harness.Source{"cold": harness.Cold, "from a template, if there is one": nil} {
		t.Run(boot, func(t *testing.T) {
			spec := echoSpec(t, target)
			spec.From = source
			m := harnesstest.Boot(t, spec)
			m.Send("uptime")
			m.Expect(`^Uptime: \d+ ms$`)
		})
	}
}

func TestALogLineLeavesThePromptIntact(t *testing.T) {
	t.Parallel()
	target := oneTarget(t)
	spec := echoSpec(t, target)
	spec.Cmdline = []string{"loglevel=1"} // keeps kernel messages from between the line and the prompt
	m := harnesstest.Boot(t, spec)
	m.Expect(`uart:~\$ `)
	echoes(t, m.Dial("tcp", echoPort), "x")
	m.Expect(`\[\d\d:\d\d:\d\d\.\d{3},\d{3}\] <inf> net_echo_server_svc_sample: Connection from \S+ \(\d+\)\nuart:~\$ `)
}

func TestADiskInQEMUsArgumentsIsInTheGuest(t *testing.T) {
	t.Parallel()
	image := filepath.Join(t.TempDir(), "disk")
	disk := append([]byte("written by the host\n"), make([]byte, 64<<10)...)
	require.NoError(t, os.WriteFile(image, disk, 0o666))
	spec := echoSpec(t, oneTarget(t))
	spec.QEMUArgs = []string{"-drive", "if=virtio,format=raw,file=" + image}
	m := harnesstest.Boot(t, spec)
	m.Send("sh head -n 1 /dev/vda")
	m.Expect(`^written by the host$`)
	m.Expect(`uart:~\$ `)
	m.Send("sh echo written by the guest > /dev/vda; echo done")
	m.Expect(`^done$`)
	m.Shutdown()
	disk, err := os.ReadFile(image)
	require.NoError(t, err)
	require.Equal(t, "written by the guest\n", string(disk[:len("written by the guest\n")]))
}

func TestTheCommandLineSetsTheGuestsAddresses(t *testing.T) {
	t.Parallel()
	target := oneTarget(t)
	for name, c := range map[string]struct{ cmdline, shows string }{
		"static": {"guesthouse.ip=10.7.0.9/16 guesthouse.ip6=fd00:7::9/64", `10\.7\.0\.9/16\n\s+fd00:7::9/64`},
		"dhcp":   {"guesthouse.ip=dhcp", `192\.0\.2\.1/24`},
	} {
		t.Run(name, func(t *testing.T) {
			spec := echoSpec(t, target)
			spec.Cmdline = []string{c.cmdline}
			m := harnesstest.Boot(t, spec)
			m.Send("net iface")
			m.Expect(c.shows)
			echoes(t, m.Dial("udp", echoPort), "hello")
			echoes(t, m.Dial("tcp", echoPort), "hello")
		})
	}
}

func TestAGuestCanServeWithPackageNet(t *testing.T) {
	t.Parallel()
	target := oneTarget(t)
	spec := harnesstest.Spec(t, target, "./guests/calls")
	spec.Ports = []string{"udp/4242", "tcp/4242"}
	m := harnesstest.Boot(t, spec)
	echoes(t, m.Dial("tcp", echoPort), "hello")
	m.Expect(`uart:~\$ `)
	m.Send("net sockets")
	m.Expect(`\b0 services`)
}
