package lan_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"guesthouse.example/harness"
	"guesthouse.example/harness/lan"
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
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	open := func(fd int) net.Conn {
		f := os.NewFile(uintptr(fd), "pair")
		defer f.Close()
		c, err := net.FileConn(f)
		require.NoError(t, err)
		return c
	}
	near, far := open(fds[0]), open(fds[1])
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

func TestConnectionsEndWithTheirMachine(t *testing.T) {
	l := newLan(t, lan.Config{})
	a, b := join(t, l, "a"), join(t, l, "b")
	echoTCP(t, a)
	echoUDP(t, a)
	echoTCP(t, b)
	dial := func(network, host string) net.Conn {
		c, err := l.Dial(within(t), network, host+":4242")
		require.NoError(t, err)
		t.Cleanup(func() { c.Close() })
		return c
	}
	doomed, other := []net.Conn{dial("tcp", "a"), dial("tcp6", "a"), dial("udp", "a")}, dial("tcp", "b")
	ended := make(chan error, len(doomed))
	for _, c := range doomed {
		go func() {
			_, err := c.Read(make([]byte, 1))
			ended <- err
		}()
	}
	why := errors.New("the guest has crashed")
	require.NoError(t, a.Line.Close(why))
	for range doomed {
		err := <-ended
		require.ErrorIs(t, err, why)
		require.ErrorAs(t, err, new(*net.OpError))
	}
	for _, c := range doomed {
		require.NoError(t, c.SetDeadline(time.Time{}))
		_, err := c.Write([]byte("x"))
		require.ErrorIs(t, err, why)
	}
	echo(t, other, "still here")
	require.Nil(t, l.Lookup("a"))
	require.Equal(t, "192.0.2.1/24", join(t, l, "c").Addresses()[0].String(), "the address is free again")
}

func TestCloseEndsEverything(t *testing.T) {
	l, err := lan.New(lan.Config{})
	require.NoError(t, err)
	g := join(t, l, "a")
	echoTCP(t, g)
	c, err := l.Dial(within(t), "tcp", "a:4242")
	require.NoError(t, err)
	defer c.Close()
	listener, err := l.Listen("tcp", ":80")
	require.NoError(t, err)
	packets, err := l.ListenPacket("udp", ":80")
	require.NoError(t, err)
	ended := make(chan error, 4)
	go func() { _, err := c.Read(make([]byte, 1)); ended <- err }()
	go func() { _, err := listener.Accept(); ended <- err }()
	go func() { _, _, err := packets.ReadFrom(make([]byte, 1)); ended <- err }()
	go func() { _, err := l.Ping(within(t), "192.0.2.77"); ended <- err }()
	require.NoError(t, l.Close())
	for range cap(ended) {
		require.ErrorIs(t, <-ended, lan.ErrClosed)
	}
	require.NoError(t, l.Close())
	_, err = l.Dial(within(t), "tcp", "192.0.2.1:4242")
	require.ErrorIs(t, err, lan.ErrClosed)
	_, err = l.Dial(within(t), "udp", "192.0.2.1:4242")
	require.ErrorIs(t, err, lan.ErrClosed)
	_, err = l.Listen("tcp", ":81")
	require.ErrorIs(t, err, lan.ErrClosed)
	_, err = l.Join("")
	require.ErrorIs(t, err, lan.ErrClosed)
}

func TestWaitsEndWithTheirContext(t *testing.T) {
	l := newLan(t, lan.Config{})
	why := errors.New("enough")
	ctx, cancel := context.WithCancelCause(context.Background())
	ended := make(chan error, 2)
	go func() { _, err := l.Dial(ctx, "tcp", "192.0.2.77:1"); ended <- err }()
	go func() { _, err := l.Ping(ctx, "2001:db8::77"); ended <- err }()
	cancel(why)
	require.ErrorIs(t, <-ended, why)
	require.ErrorIs(t, <-ended, why)
}

func TestAConnectionThatNobodyAcceptsIsRefused(t *testing.T) {
	l := newLan(t, lan.Config{})
	join(t, l, "a")
	_, err := l.Dial(within(t), "tcp", "a:1")
	require.ErrorContains(t, err, "refused")
}

// The payload that arrives is compared byte by byte: a bad link may slow a stream down, and must not change it.
func TestTCPSurvivesABadLink(t *testing.T) {
	var captured bytes.Buffer
	l := newLan(t, lan.Config{Seed: 5})
	line, err := l.Join("server")
	require.NoError(t, err)
	g := connect(t, line, &captured)
	echoTCP(t, g)
	require.NoError(t, l.Link("server").SetFaults(lan.Both, lan.Faults{
		Loss: 0.05, Duplicate: 0.1, Reorder: 0.1, ReorderFrames: 3, BitFlip: 0.02, Truncate: 0.02, Delay: time.Millisecond, Jitter: time.Millisecond,
	}))
	c, err := l.Dial(within(t), "tcp", "server:4242")
	require.NoError(t, err)
	sent := make([]byte, 200<<10)
	for i := range sent {
		sent[i] = byte(i * i >> 7)
	}
	go func() {
		c.Write(sent)
		c.(interface{ CloseWrite() error }).CloseWrite()
	}()
	require.NoError(t, c.SetReadDeadline(time.Now().Add(2*time.Minute)))
	got, err := io.ReadAll(c)
	require.NoError(t, err)
	require.True(t, bytes.Equal(sent, got))
	s := l.Link("server").Stats(lan.Down)
	require.NotZero(t, s.Lost)
	require.NotZero(t, s.Duplicated)
	require.NotZero(t, s.Reordered)
	require.NotZero(t, s.Damaged)
	require.NoError(t, line.Close(nil))
	require.Contains(t, captured.String(), "duplicated")
	require.Contains(t, captured.String(), "seed 5")
}

func TestAPartitionHeals(t *testing.T) {
	l := newLan(t, lan.Config{})
	a, b := join(t, l, "a"), join(t, l, "b")
	echoUDP(t, b)
	ask := func(from *netstack.Stack, to netip.Addr) error {
		ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
		defer cancel()
		_, err := from.Ping(ctx, to)
		return err
	}
	_, err := a.Ping(within(t), b.addr())
	require.NoError(t, err)
	l.Partition([]string{"a"}, []string{"b", "nobody"})
	require.ErrorIs(t, ask(a.Stack, b.addr()), context.DeadlineExceeded)
	_, err = l.Ping(within(t), "a")
	require.NoError(t, err)
	_, err = l.Ping(within(t), "b")
	require.NoError(t, err)
	l.Heal()
	_, err = a.Ping(within(t), b.addr())
	require.NoError(t, err)

	l.Link("b").Cut()
	require.ErrorIs(t, ask(a.Stack, b.addr()), context.DeadlineExceeded)
	l.Link("b").Mend()
	_, err = a.Ping(within(t), b.addr())
	require.NoError(t, err)
}

func TestTheFaultsOfTheConfigAreThoseOfEachMachine(t *testing.T) {
	l := newLan(t, lan.Config{Faults: lan.Faults{Delay: time.Millisecond}})
	require.Equal(t, time.Millisecond, l.Link("a").Faults(lan.Down).Delay)
	require.NoError(t, l.Link("a").SetFaults(lan.Down, lan.Faults{Loss: 1}))
	join(t, l, "a")
	require.Equal(t, lan.Faults{Loss: 1}, l.Link("a").Faults(lan.Down))
	require.Equal(t, lan.Faults{Delay: time.Millisecond}, l.Link("a").Faults(lan.Up))
	require.Equal(t, lan.Faults{}, l.Link(lan.HostName).Faults(lan.Up))
}

func TestASeedIsDrawn(t *testing.T) {
	require.Equal(t, uint64(9), newLan(t, lan.Config{Seed: 9}).Seed())
	a, b := newLan(t, lan.Config{}), newLan(t, lan.Config{})
	require.NotZero(t, a.Seed())
	require.NotEqual(t, a.Seed(), b.Seed())
}

func TestNonsenseIsRefused(t *testing.T) {
	for _, c := range []lan.Config{
		{IPv4: netip.MustParsePrefix("192.0.2.0/30")}, {IPv4: netip.MustParsePrefix("2001:db8::/64")}, {IPv6: netip.MustParsePrefix("2001:db8::/112")},
		{IPv6: netip.MustParsePrefix("192.0.2.0/24")}, {Faults: lan.Faults{Loss: 1.5}}, {Faults: lan.Faults{Delay: -1}},
	} {
		_, err := lan.New(c)
		require.Error(t, err, "%+v", c)
	}
	l := newLan(t, lan.Config{})
	join(t, l, "a")
	for _, name := range []string{"a", "host", "A", "-a", "a b", "a."} {
		_, err := l.Join(name)
		require.Error(t, err, name)
	}
	for _, try := range [][2]string{{"tcp", "nobody:1"}, {"tcp", "a"}, {"tcp", "a:x"}, {"tcp4", "[2001:db8::1]:1"}, {"ip", "a:1"}, {"tcp", ":1"}} {
		_, err := l.Dial(within(t), try[0], try[1])
		require.Error(t, err, "%q", try)
	}
	_, err := l.Listen("udp", ":1")
	require.Error(t, err)
	_, err = l.ListenPacket("tcp", ":1")
	require.Error(t, err)
	require.Error(t, l.Route(netip.MustParsePrefix("198.51.100.0/24"), netip.MustParseAddr("2001:db8::1")))
}

func TestAutomaticNamesAndAddresses(t *testing.T) {
	l := newLan(t, lan.Config{IPv4: netip.MustParsePrefix("10.7.0.0/29"), IPv6: netip.MustParsePrefix("fd00:7::/64")})
	want := [][3]string{{"guest", "10.7.0.1/29", "fd00:7::1/64"}, {"guest2", "10.7.0.3/29", "fd00:7::3/64"}, {"guest3", "10.7.0.4/29", "fd00:7::4/64"},
		{"guest4", "10.7.0.5/29", "fd00:7::5/64"}, {"guest5", "10.7.0.6/29", "fd00:7::6/64"}}
	macs := make(map[string]bool)
	for _, w := range want {
		line, err := l.Join("")
		require.NoError(t, err)
		require.Equal(t, w, [3]string{line.Name(), line.Addresses()[0].String(), line.Addresses()[1].String()})
		macs[line.MAC().String()] = true
	}
	require.Len(t, macs, len(want))
	_, err := l.Join("")
	require.ErrorContains(t, err, "no free address")
}
