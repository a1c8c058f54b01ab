package lan_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"guesthouse.example/harness"
	"guesthouse.example/harness/lan"
	"guesthouse.example/harness/lan/internal/cabletest"
	"guesthouse.example/harness/lan/internal/netstack"
	"guesthouse.example/harness/lan/internal/qemuport"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// within bounds what a test waits for.
func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func newLan(t *testing.T, c lan.Config) *lan.Lan {
	l, err := lan.New(c)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.Close()) })
	return l
}

// A guest is a machine in this process. It is connected as QEMU connects a card.
type guest struct {
	*netstack.Stack
	*lan.Line
}

func (g guest) addr() netip.Addr { return g.Addresses()[0].Addr() }

func join(t *testing.T, l *lan.Lan, name string) guest {
	line, err := l.Join(name)
	require.NoError(t, err)
	return connect(t, line, nil)
}

func connect(t *testing.T, line *lan.Line, capture io.Writer) guest {
	near, far := cabletest.New(t)
	require.NoError(t, line.Connect(harness.Cable{Conn: near, Capture: capture}))
	card, err := qemuport.New(far)
	require.NoError(t, err)
	stack, err := netstack.New([6]byte(line.MAC()), line.Addresses(), card.Write)
	require.NoError(t, err)
	card.Start(stack.Deliver)
	t.Cleanup(func() {
		stack.Close(net.ErrClosed)
		card.Close()
		line.Close(nil)
	})
	return guest{stack, line}
}

// echoTCP and echoUDP echo on port 4242 of all addresses of a guest.
func echoTCP(t *testing.T, g guest) {
	l, err := g.ListenTCP(netstack.Both, netip.AddrPortFrom(netip.Addr{}, 4242))
	require.NoError(t, err)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				io.Copy(c, c)
			}()
		}
	}()
}

func echoUDP(t *testing.T, g guest) {
	c, err := g.ListenUDP(netstack.Both, netip.AddrPortFrom(netip.Addr{}, 4242))
	require.NoError(t, err)
	go func() {
		b := make([]byte, 2000)
		for {
			n, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			c.WriteTo(b[:n], from)
		}
	}()
}

// echo sends a text and reads it back.
func echo(t *testing.T, c net.Conn, text string) {
	require.NoError(t, c.SetDeadline(time.Now().Add(time.Minute)))
	_, err := c.Write([]byte(text))
	require.NoError(t, err)
	b := make([]byte, len(text))
	_, err = io.ReadFull(c, b)
	require.NoError(t, err)
	require.Equal(t, text, string(b))
}

func TestTheHostReachesAMachine(t *testing.T) {
	l := newLan(t, lan.Config{})
	g := join(t, l, "server")
	require.Equal(t, "192.0.2.1/24", g.Addresses()[0].String())
	require.Equal(t, "2001:db8::1/64", g.Addresses()[1].String())
	echoTCP(t, g)
	echoUDP(t, g)
	for _, network := range []string{"tcp", "tcp4", "tcp6", "udp", "udp4", "udp6"} {
		for _, host := range map[string][]string{"tcp": {"server", "SERVER", "192.0.2.1", "[2001:db8::1]"}, "tcp4": {"server"}, "tcp6": {"server"},
			"udp": {"server", "[2001:db8::1]"}, "udp4": {"192.0.2.1"}, "udp6": {"server"}}[network] {
			c, err := l.Dial(within(t), network, host+":4242")
			require.NoError(t, err, "%s %s", network, host)
			echo(t, c, network+host)
			require.NoError(t, c.Close())
		}
	}
	for _, host := range []string{"server", "192.0.2.1", "2001:db8::1"} {
		d, err := l.Ping(within(t), host)
		require.NoError(t, err, host)
		require.Positive(t, d)
	}
}

func TestAMachineReachesTheHost(t *testing.T) {
	l := newLan(t, lan.Config{})
	g := join(t, l, "client")
	host := l.Lookup("host")
	require.Len(t, host, 2)
	listener, err := l.Listen("tcp", ":80")
	require.NoError(t, err)
	defer listener.Close()
	packets, err := l.ListenPacket("udp", ":69")
	require.NoError(t, err)
	defer packets.Close()
	for _, at := range host {
		go func() {
			c, err := listener.Accept()
			if err == nil {
				fmt.Fprintf(c, "hello %v", c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap())
				c.Close()
			}
		}()
		c, err := g.DialTCP(within(t), netip.AddrPortFrom(at, 80))
		require.NoError(t, err)
		text, err := io.ReadAll(c)
		require.NoError(t, err)
		own := g.Addresses()[0].Addr()
		if at.Is6() {
			own = g.Addresses()[1].Addr()
		}
		require.Equal(t, fmt.Sprintf("hello %v", own), string(text))

		u, err := g.DialUDP(netip.AddrPortFrom(at, 69))
		require.NoError(t, err)
		_, err = u.Write([]byte("ask"))
		require.NoError(t, err)
		b := make([]byte, 10)
		require.NoError(t, packets.SetReadDeadline(time.Now().Add(time.Minute)))
		n, from, err := packets.ReadFrom(b)
		require.NoError(t, err)
		_, err = packets.WriteTo(b[:n], from)
		require.NoError(t, err)
		require.NoError(t, u.SetReadDeadline(time.Now().Add(time.Minute)))
		n, err = u.Read(b)
		require.NoError(t, err)
		require.Equal(t, "ask", string(b[:n]))
		_, err = g.Ping(within(t), at)
		require.NoError(t, err)
	}
}

func TestMachinesReachEachOther(t *testing.T) {
	l := newLan(t, lan.Config{})
	a, b := join(t, l, "a"), join(t, l, "b")
	require.Equal(t, "192.0.2.3/24", b.Addresses()[0].String())
	echoTCP(t, b)
	for _, at := range b.Addresses() {
		c, err := a.DialTCP(within(t), netip.AddrPortFrom(at.Addr(), 4242))
		require.NoError(t, err)
		echo(t, c, "hello")
		_, err = a.Ping(within(t), at.Addr())
		require.NoError(t, err)
	}
}

func TestTransportReachesMachinesByName(t *testing.T) {
	l := newLan(t, lan.Config{})
	g := join(t, l, "server")
	listener, err := g.ListenTCP(netstack.Both, netip.AddrPortFrom(netip.Addr{}, 8080))
	require.NoError(t, err)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "hello ", r.Host) })}
	go server.Serve(listener)
	defer server.Close()
	transport := l.Transport()
	defer transport.CloseIdleConnections()
	r, err := http.NewRequestWithContext(within(t), "GET", "http://server:8080/", nil)
	require.NoError(t, err)
	answer, err := transport.RoundTrip(r)
	require.NoError(t, err)
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	require.NoError(t, err)
	require.Equal(t, "hello server:8080", string(text))
}

func TestAConnectionThatNobodyAcceptsIsRefused(t *testing.T) {
	l := newLan(t, lan.Config{})
	join(t, l, "a")
	_, err := l.Dial(within(t), "tcp", "a:1")
	require.ErrorContains(t, err, "refused")
}
