// Package integration tests package lan with machines on real QEMU.
package integration

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket/pcapgo"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"guesthouse.example/harness"
	"guesthouse.example/harness/harnesstest"
	"guesthouse.example/harness/lan"
)

func TestMain(m *testing.M) {
	code := m.Run()
	harnesstest.EndPrefetched()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// echoGuest is the guest with the echo service, on port 4242.
const echoGuest = "guesthouse.example/guest/cmd/uinit"

// oneTarget returns the target of a test whose outcome does not depend on the target: the first one that
// GUESTHOUSE_TARGETS selects, or arm64, which boots with the least work.
func oneTarget(t *testing.T) string {
	first, _, _ := strings.Cut(os.Getenv("GUESTHOUSE_TARGETS"), ",")
	name := cmp.Or(first, "arm64")
	harnesstest.Require(t, name)
	return name
}

func newLan(t *testing.T, c lan.Config) *lan.Lan {
	l, err := lan.New(c)
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, l.Close())
		if t.Failed() {
			t.Logf("the seed of the lan is %d", l.Seed())
		}
	})
	return l
}

// echo sends bytes and reads them back.
func echo(t *testing.T, c net.Conn, sent []byte) {
	t.Helper()
	go c.Write(sent)
	got := make([]byte, len(sent))
	_, err := io.ReadFull(c, got)
	require.NoError(t, err)
	require.True(t, bytes.Equal(sent, got))
}

// within bounds what a test waits for, in the machine's time.
func within(t *testing.T, m *harnesstest.Machine) context.Context {
	ctx, cancel := m.Machine.Within(t.Context(), harnesstest.Within)
	t.Cleanup(cancel)
	return ctx
}

// exercise uses a machine over each protocol.
func exercise(t *testing.T, l *lan.Lan, m *harnesstest.Machine, name string) {
	t.Helper()
	for _, network := range []string{"udp", "udp6", "tcp", "tcp6"} {
		echo(t, m.Dial(network, 4242), []byte(network+" to "+name))
	}
	for _, a := range l.Lookup(name) {
		_, err := l.Ping(within(t, m), a.String())
		require.NoError(t, err)
	}
}

// A machine answers over IPv4 and IPv6, UDP, TCP and ICMP. The first machine has the addresses of Zephyr's sample
// echo_service, and logs its clients as the sample does.
func TestAMachineOnALan(t *testing.T) {
	t.Parallel()
	harnesstest.EachTarget(t, func(t *testing.T, target string) {
		l := newLan(t, lan.Config{})
		spec := harnesstest.Spec(t, target, echoGuest)
		spec.Name, spec.Net = "server", []harness.Network{l}
		m := harnesstest.Boot(t, spec)
		exercise(t, l, m, "server")
		for at, client := range map[string]string{"192.0.2.1": "::ffff:192.0.2.2", "2001:db8::1": "2001:db8::2"} {
			c, err := l.Dial(within(t, m), "tcp", net.JoinHostPort(at, "4242"))
			require.NoError(t, err)
			echo(t, c, []byte("hello "+at))
			require.NoError(t, c.Close())
			m.Expect(`<inf> net_echo_server_svc_sample: Connection from ` + regexp.QuoteMeta(client) + ` \(\d+\)`)
			m.Expect(`<inf> net_echo_server_svc_sample: Connection from ` + regexp.QuoteMeta(client) + ` closed`)
		}
		m.Shutdown()
	})
}

// A machine answers whichever way it has started: the first machine boots, and the cache restores the second and
// prefetches the third.
func TestAMachineIsOnALanInEveryBootMode(t *testing.T) {
	t.Parallel()
	var cache harness.TemplateCache
	cache.Dir = filepath.Join(t.TempDir(), "templates")
	cache.Prefetch = true
	t.Cleanup(cache.Close)
	start := func(l *lan.Lan, name string, mode harness.BootMode) *harnesstest.Machine {
		spec := harnesstest.Spec(t, oneTarget(t), echoGuest)
		spec.Name, spec.Net, spec.From = name, []harness.Network{l}, &cache
		m := harnesstest.Boot(t, spec)
		require.Equal(t, mode, m.Machine.Result().Boot, m.Machine.Result().Why)
		return m
	}
	l := newLan(t, lan.Config{})
	first := start(l, "first", harness.BootCold)
	require.Equal(t, "192.0.2.1", l.Lookup("first")[0].String())
	exercise(t, l, first, "first")
	_, err := first.Machine.Save(t.Context(), filepath.Join(t.TempDir(), "template"))
	require.ErrorContains(t, err, "a connection is open: TCP[ESTABLISHED] ") // one of exercise

	second := start(l, "second", harness.BootRestored)
	require.Equal(t, "192.0.2.3", l.Lookup("second")[0].String())
	exercise(t, l, second, "second")
	exercise(t, l, first, "first")
	require.Contains(t, second.Output("cat", "/sys/class/net/eth0/address"), "02:67:c0:00:02:03")
	addresses := second.Output("ip", "addr")
	require.NotContains(t, addresses, "192.0.2.1/24")
	require.NotContains(t, addresses, "2001:db8::1/64")

	_, err = cache.Waiting(t.Context())
	require.NoError(t, err)
	third := start(l, "third", harness.BootPrefetched)
	exercise(t, l, third, "third")
	exercise(t, l, second, "second")

	for _, name := range []string{"first", "host"} {
		third.Output("ping", "-c", "1", name)
	}

	conn := second.Dial("tcp6", 4242)
	second.Shutdown()
	_, err = conn.Read(make([]byte, 1))
	require.Error(t, err)
	require.Nil(t, l.Lookup("second"))
}

// A guest reaches what the test listens on, by name and over IPv6, and finds the other machines by their names.
func TestAGuestCallsOut(t *testing.T) {
	t.Parallel()
	harnesstest.EachTarget(t, func(t *testing.T, target string) {
		l := newLan(t, lan.Config{})
		listener, err := l.Listen("tcp", ":80")
		require.NoError(t, err)
		defer listener.Close()
		go func() {
			for {
				c, err := listener.Accept()
				if err != nil {
					return
				}
				fmt.Fprint(c, "hello ", c.RemoteAddr().(*net.TCPAddr).IP)
				c.Close()
			}
		}()
		spec := harnesstest.Spec(t, target, "./guests/caller")
		spec.Name, spec.Net = "caller", []harness.Network{l}
		_, err = l.Join("other")
		require.NoError(t, err)
		m := harnesstest.Boot(t, spec)
		require.Equal(t, "hello 192.0.2.3", m.Event())
		require.Equal(t, "hello 2001:db8::3", m.Event())
		found := m.Event()
		require.Contains(t, found, "192.0.2.1")
		require.Contains(t, found, "2001:db8::1")
	})
}

// A bad link slows the echo service down, and every byte is right. The record shows the fates.
func TestEchoOverABadLink(t *testing.T) {
	t.Parallel()
	l := newLan(t, lan.Config{Seed: 7})
	spec := harnesstest.Spec(t, "x86_64", echoGuest)
	spec.Name, spec.Net, spec.Dir = "server", []harness.Network{l}, filepath.Join(t.TempDir(), "record")
	m := harnesstest.Boot(t, spec)
	require.NoError(t, l.Link("server").SetFaults(lan.Both, lan.Faults{
		Loss: 0.1, BurstLoss: 0.01, BurstLength: 3, Duplicate: 0.1, Reorder: 0.1, ReorderFrames: 3, BitFlip: 0.01, Truncate: 0.01,
		Delay: 2 * time.Millisecond, Jitter: time.Millisecond, Rate: 20_000_000, MTU: 1500,
	}))
	sent := make([]byte, 40<<10)
	for i := range sent {
		sent[i] = byte(i * i >> 5)
	}
	echo(t, m.Dial("tcp", 4242), sent)
	m.Shutdown()
	require.NoError(t, m.Machine.Close()) // so that the capture is complete
	require.NotZero(t, l.Link("server").Stats(lan.Up).Lost)

	file, err := os.Open(filepath.Join(spec.Dir, "net0.pcapng"))
	require.NoError(t, err)
	defer file.Close()
	r, err := pcapgo.NewNgReader(file, pcapgo.DefaultNgReaderOptions)
	require.NoError(t, err)
	frames, fates := 0, 0
	for {
		_, _, options, err := r.ReadPacketDataWithOptions()
		if err == io.EOF {
			break
		}
		require.NoError(t, err)
		frames++
		fates += len(options.Comments)
	}
	require.Equal(t, "seed 7", r.SectionInfo().Comment)
	require.Greater(t, frames, 50)
	require.NotZero(t, fates)
	require.Contains(t, m.Machine.Result().Net[0], "seed 7")
	checkCapture(t, file.Name())
}
