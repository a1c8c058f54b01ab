package netstack

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// full returns an address for package tcpip. Without an address it is that of any card.
func full(at netip.AddrPort) tcpip.FullAddress {
	f := tcpip.FullAddress{NIC: card, Port: at.Port()}
	if a := at.Addr(); a.IsValid() && !a.IsUnspecified() {
		f.Addr = tcpip.AddrFromSlice(a.AsSlice())
	}
	return f
}

// DialTCP connects to an address. It fails when ctx ends.
func (n *Stack) DialTCP(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	if why := n.life.ended(); why != nil {
		return nil, why
	}
	c, err := gonet.DialContextTCP(ctx, n.stack, full(to), protocolOf(to.Addr()))
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, n.because(err)
	}
	return track(&n.life, c), nil
}

// DialUDP returns a socket that exchanges datagrams with an address.
func (n *Stack) DialUDP(to netip.AddrPort) (net.Conn, error) {
	if why := n.life.ended(); why != nil {
		return nil, why
	}
	remote := full(to)
	c, err := gonet.DialUDP(n.stack, nil, &remote, protocolOf(to.Addr()))
	if err != nil {
		return nil, n.because(err)
	}
	return track(&n.life, c), nil
}

// because replaces an error by the reason for the stack's end, if it has ended.
func (n *Stack) because(err error) error {
	if why := n.life.ended(); why != nil {
		return why
	}
	return err
}

// A Family selects the addresses of a listener that names none.
type Family int

const (
	Both Family = iota
	IPv4
	IPv6
)

// endpoint returns an endpoint that is bound to an address.
func (n *Stack) endpoint(transport tcpip.TransportProtocolNumber, family Family, at netip.AddrPort, wq *waiter.Queue) (tcpip.Endpoint, error) {
	if why := n.life.ended(); why != nil {
		return nil, why
	}
	protocol := tcpip.NetworkProtocolNumber(ipv6.ProtocolNumber)
	if family == IPv4 || at.Addr().Is4() {
		protocol = ipv4.ProtocolNumber
	}
	ep, err := n.stack.NewEndpoint(transport, protocol, wq)
	if err != nil {
		return nil, n.because(failed(err))
	}
	if protocol == ipv6.ProtocolNumber {
		ep.SocketOptions().SetV6Only(family == IPv6)
	}
	if err := ep.Bind(full(at)); err != nil {
		ep.Close()
		return nil, n.because(fmt.Errorf("bind %v: %w", at, failed(err)))
	}
	return ep, nil
}

// ListenTCP accepts connections at an address. Port 0 stands for a free one.
func (n *Stack) ListenTCP(family Family, at netip.AddrPort) (net.Listener, error) {
	const backlog = 4096
	var wq waiter.Queue
	ep, err := n.endpoint(tcp.ProtocolNumber, family, at, &wq)
	if err != nil {
		return nil, err
	}
	if err := ep.Listen(backlog); err != nil {
		ep.Close()
		return nil, n.because(failed(err))
	}
	g := gonet.NewTCPListener(n.stack, &wq, ep)
	l := &listener{Listener: g, life: &n.life, shutdown: g.Shutdown}
	n.life.add(l)
	return l, nil
}

// ListenUDP receives datagrams at an address. Port 0 stands for a free one.
func (n *Stack) ListenUDP(family Family, at netip.AddrPort) (net.PacketConn, error) {
	var wq waiter.Queue
	ep, err := n.endpoint(udp.ProtocolNumber, family, at, &wq)
	if err != nil {
		return nil, err
	}
	g := gonet.NewUDPConn(&wq, ep)
	c := &packetConn{&conn{Conn: g, life: &n.life}, g}
	n.life.add(c.conn)
	return c, nil
}

// Ping sends echo requests (RFC 792, RFC 4443) to an address, one a second, until an answer comes or ctx ends. It
// returns the time from the last request to its answer.
func (n *Stack) Ping(ctx context.Context, to netip.Addr) (time.Duration, error) {
	transport := tcpip.TransportProtocolNumber(icmp.ProtocolNumber6)
	if to.Is4() {
		transport = icmp.ProtocolNumber4
	}
	var wq waiter.Queue
	ep, failure := n.stack.NewEndpoint(transport, protocolOf(to), &wq)
	if failure != nil {
		return 0, n.because(failed(failure))
	}
	g := gonet.NewUDPConn(&wq, ep) // it reads and writes messages, whatever the transport
	c := &conn{Conn: g, life: &n.life}
	n.life.add(c)
	defer c.Close()
	if err := ep.Connect(full(netip.AddrPortFrom(to, 0))); err != nil {
		return 0, n.because(failed(err))
	}
	defer context.AfterFunc(ctx, func() { c.end(context.Cause(ctx)) })()
	answer := make([]byte, mtu)
	for sequence := uint16(1); ; sequence++ {
		sent := time.Now()
		if _, err := c.Write(echoRequest(to, sequence)); err != nil {
			return 0, n.pingError(c, err)
		}
		c.SetReadDeadline(sent.Add(time.Second))
		for {
			size, err := c.Read(answer)
			if timeout, ok := err.(net.Error); ok && timeout.Timeout() && n.pingError(c, nil) == nil {
				break
			}
			if err != nil {
				return 0, n.pingError(c, err)
			}
			if size >= header.ICMPv4MinimumSize && binary.BigEndian.Uint16(answer[6:]) == sequence {
				return time.Since(sent), nil
			}
		}
	}
}

// pingError returns why a ping has ended: the reason for its connection's end, or else err.
func (n *Stack) pingError(c *conn, err error) error {
	c.deadlines.mu.Lock()
	defer c.deadlines.mu.Unlock()
	if c.why != nil {
		return c.why
	}
	return err
}

// echoRequest returns the message of an echo request. The stack fills in the identifier and the checksum.
func echoRequest(to netip.Addr, sequence uint16) []byte {
	const data = 56 // bytes, as other pings send
	if to.Is4() {
		m := header.ICMPv4(make([]byte, header.ICMPv4MinimumSize+data))
		m.SetType(header.ICMPv4Echo)
		m.SetSequence(sequence)
		return m
	}
	m := header.ICMPv6(make([]byte, header.ICMPv6MinimumSize+data))
	m.SetType(header.ICMPv6EchoRequest)
	m.SetSequence(sequence)
	return m
}
