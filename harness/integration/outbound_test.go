package integration

import (
	"bytes"
	"cmp"
	"errors"
	"net"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"guesthouse.example/harness"
	"guesthouse.example/harness/harnesstest"
)

// The guest's frames leave in order. When its answer has arrived, the filter has passed or stopped
// every earlier frame.
func TestAGuestReachesWhatItsOutboundAllows(t *testing.T) {
	t.Parallel()
	target := oneTarget(t)
	for _, outbound := range []harness.Outbound{"", harness.OutboundHost, harness.OutboundInternet} {
		t.Run(cmp.Or(string(outbound), "default"), func(t *testing.T) {
			t.Parallel()
			spec := harnesstest.Spec(t, target, "./guests/calls")
			spec.Ports = []string{"udp/4242", "tcp/4242"}
			spec.Outbound = outbound
			original, template := save(t, spec)
			reaches(t, original, outbound)
			spec.From = template
			reaches(t, restored(t, spec), outbound)
		})
	}
}

// A guest that sends arbitrary frames as fast as it can neither breaks the filter nor fills its
// memory.
func TestAFloodOfFramesBreaksNothing(t *testing.T) {
	t.Parallel()
	target := oneTarget(t)
	spec := harnesstest.Spec(t, target, "./guests/calls")
	spec.Ports = []string{"udp/4242", "tcp/4242"}
	m := harnesstest.Boot(t, spec)
	for range 5 {
		require.Equal(t, "flooded", asked(t, m.Dial, "flood 4000"))
	}
	echoes(t, m.Dial("tcp", echoPort), "a stream")
	require.Equal(t, "hello", asked(t, m.Dial, "hello"))
	require.Len(t, m.Result().Stopped, 32, "of thousands")
	require.Empty(t, m.Report().Stderr, "QEMU has nothing to complain of")
}

// reaches makes a guest connect and send everywhere, and checks what arrives.
func reaches(t *testing.T, m *harnesstest.Machine, outbound harness.Outbound) {
	open := outbound == harness.OutboundHost || outbound == harness.OutboundInternet
	for _, loopback := range []struct{ host, gateway string }{{"127.0.0.1", "192.0.2.2"}, {"::1", "2001:db8::2"}} {
		streams, err := net.Listen("tcp", net.JoinHostPort(loopback.host, "0"))
		if errors.Is(err, unix.EADDRNOTAVAIL) && loopback.host == "::1" {
			t.Log("this host has no IPv6")
			continue
		}
		require.NoError(t, err)
		defer streams.Close()
		datagrams, err := net.ListenPacket("udp", net.JoinHostPort(loopback.host, "0"))
		require.NoError(t, err)
		defer datagrams.Close()
		names := []string{loopback.gateway}
		if loopback.host == "127.0.0.1" {
			names = append(names, "host")
		}
		for _, name := range names {
			stream, datagram := join(name, streams.Addr()), join(name, datagrams.LocalAddr())
			require.NoError(t, streams.(*net.TCPListener).SetDeadline(time.Now().Add(4*harnesstest.Within)))
			if open {
				require.Equal(t, "connected", asked(t, m.Dial, "tcp "+stream))
				conn, err := streams.Accept()
				require.NoError(t, err)
				conn.Close()
				require.Equal(t, "sent", asked(t, m.Dial, "udp "+datagram))
				require.Equal(t, "hello", received(t, datagrams, harnesstest.Within), datagram)
				continue
			}
			require.Contains(t, asked(t, m.Dial, "tcp "+stream), "connection refused")
			require.NoError(t, streams.(*net.TCPListener).SetDeadline(time.Now().Add(time.Millisecond)))
			_, err := streams.Accept()
			require.ErrorIs(t, err, os.ErrDeadlineExceeded)
			require.Equal(t, "sent", asked(t, m.Dial, "udp "+datagram))
			require.Empty(t, received(t, datagrams, time.Millisecond))
			if loopback.host == "127.0.0.1" {
				require.Equal(t, "sent", asked(t, m.Dial, "from "+datagram))
				require.Empty(t, received(t, datagrams, time.Millisecond), "a forwarded port sends only to its clients")
				require.Contains(t, m.Result().Stopped, "tcp 192.0.2.2:"+port(streams.Addr()))
				require.Contains(t, m.Result().Stopped, "udp 192.0.2.2:"+port(datagrams.LocalAddr()))
			}
		}
	}
	if outbound != harness.OutboundInternet { // with internet access the packets would really leave
		require.Equal(t, "routed", asked(t, m.Dial, "route 192.0.2.2 2001:db8::2"))
		for _, place := range []string{"192.0.2.3:53", "[2001:db8::3]:53", "198.51.100.1:80", "[2001:db8:ffff::1]:80"} {
			require.Contains(t, asked(t, m.Dial, "tcp "+place), "connection refused")
			require.Equal(t, "sent", asked(t, m.Dial, "udp "+place))
			require.Contains(t, m.Result().Stopped, "tcp "+place)
			require.Contains(t, m.Result().Stopped, "udp "+place)
		}
	}
	require.Equal(t, "guest [192.0.2.1 2001:db8::1]", asked(t, m.Dial, "names"))

	// The guest answers its clients, with fragmented datagrams too, and several at once.
	echoes(t, m.Dial("tcp", echoPort), "a stream")
	for _, size := range []int{1, 1472, 1473, 20000} {
		var conns []net.Conn
		for i := range 3 {
			conn := m.Dial("udp", echoPort)
			conns = append(conns, conn)
			_, err := conn.Write(payload(i, size))
			require.NoError(t, err)
		}
		for i, conn := range conns {
			buf := make([]byte, 64<<10)
			n, err := conn.Read(buf)
			require.NoError(t, err)
			require.Equal(t, payload(i, size), buf[:n])
		}
	}
}

func payload(i, size int) []byte { return bytes.Repeat([]byte{byte('A' + i)}, size) }

func port(addr net.Addr) string {
	_, port, _ := net.SplitHostPort(addr.String())
	return port
}

func join(host string, addr net.Addr) string { return net.JoinHostPort(host, port(addr)) }

// received returns the datagram that arrives within that time, or "".
func received(t *testing.T, conn net.PacketConn, within time.Duration) string {
	t.Helper()
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(within)))
	buf := make([]byte, 100)
	n, _, err := conn.ReadFrom(buf)
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		require.NoError(t, err)
	}
	return string(buf[:n])
}
