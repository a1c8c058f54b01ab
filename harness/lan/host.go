package lan

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"guesthouse.example/harness/lan/internal/netstack"
)

// Dial connects from this process to a machine on the lan. The network is "tcp", "tcp4", "tcp6", "udp", "udp4" or
// "udp6", and the address is "server:4242" or "[2001:db8::1]:4242", for example. For a name, "tcp" and "udp" use
// IPv4.
//
// When the machine leaves the lan or the lan is closed, reads and writes fail with a *net.OpError that says why.
func (l *Lan) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	fail := func(err error) (net.Conn, error) {
		return nil, fmt.Errorf("lan: dial %s %s: %w", network, address, err)
	}
	transport, family, err := splitNetwork(network)
	if err != nil {
		return fail(err)
	}
	to, err := l.resolve(family, address)
	if err != nil {
		return fail(err)
	}
	var c net.Conn
	if transport == "tcp" {
		c, err = l.host.DialTCP(ctx, to)
	} else {
		c, err = l.host.DialUDP(to)
	}
	if err != nil {
		return fail(err)
	}
	return c, nil
}

func splitNetwork(network string) (transport string, family netstack.Family, err error) {
	switch network {
	case "tcp", "udp":
		return network, netstack.Both, nil
	case "tcp4", "udp4":
		return network[:3], netstack.IPv4, nil
	case "tcp6", "udp6":
		return network[:3], netstack.IPv6, nil
	}
	return "", 0, fmt.Errorf("network %q: write tcp, tcp4, tcp6, udp, udp4 or udp6", network)
}

// resolve returns the address that a text names. The host of the text must not be empty.
func (l *Lan) resolve(family netstack.Family, text string) (at netip.AddrPort, err error) {
	host, number, err := net.SplitHostPort(text)
	if err != nil {
		return at, err
	}
	port, err := strconv.ParseUint(number, 10, 16)
	if err != nil {
		return at, fmt.Errorf("port %q: write a number from 0 to 65535", number)
	}
	a, err := l.resolveHost(family, host)
	return netip.AddrPortFrom(a, uint16(port)), err
}

func (l *Lan) resolveHost(family netstack.Family, host string) (netip.Addr, error) {
	candidates := l.Lookup(strings.ToLower(host))
	if a, err := netip.ParseAddr(host); err == nil {
		candidates = []netip.Addr{a.Unmap()}
	}
	for _, a := range candidates {
		if family == netstack.Both || a.Is4() == (family == netstack.IPv4) {
			return a, nil
		}
	}
	if len(candidates) > 0 {
		return netip.Addr{}, fmt.Errorf("%s is of another family", host)
	}
	return netip.Addr{}, fmt.Errorf("no machine on the lan is called %q", host)
}

// local returns the address at which a listener listens. Without a host it is each address of this process.
func (l *Lan) local(family netstack.Family, text string) (netip.AddrPort, error) {
	if number, ok := strings.CutPrefix(text, ":"); ok {
		port, err := strconv.ParseUint(number, 10, 16)
		if err != nil {
			return netip.AddrPort{}, fmt.Errorf("port %q: write a number from 0 to 65535", number)
		}
		return netip.AddrPortFrom(netip.Addr{}, uint16(port)), nil
	}
	return l.resolve(family, text)
}

// Listen accepts TCP connections to this process. The network is "tcp", "tcp4" or "tcp6". The address is ":80", for
// example, or names one of the addresses of this process; port 0 stands for a free one.
func (l *Lan) Listen(network, address string) (net.Listener, error) {
	fail := func(err error) (net.Listener, error) {
		return nil, fmt.Errorf("lan: listen %s %s: %w", network, address, err)
	}
	transport, family, err := splitNetwork(network)
	if err == nil && transport != "tcp" {
		err = fmt.Errorf("network %q: ListenPacket is for datagrams", network)
	}
	if err != nil {
		return fail(err)
	}
	at, err := l.local(family, address)
	if err != nil {
		return fail(err)
	}
	listener, err := l.host.ListenTCP(family, at)
	if err != nil {
		return fail(err)
	}
	return listener, nil
}

// ListenPacket receives UDP datagrams for this process. The network is "udp", "udp4" or "udp6", and the address is
// as for Listen.
func (l *Lan) ListenPacket(network, address string) (net.PacketConn, error) {
	fail := func(err error) (net.PacketConn, error) {
		return nil, fmt.Errorf("lan: listen %s %s: %w", network, address, err)
	}
	transport, family, err := splitNetwork(network)
	if err == nil && transport != "udp" {
		err = fmt.Errorf("network %q: Listen is for streams", network)
	}
	if err != nil {
		return fail(err)
	}
	at, err := l.local(family, address)
	if err != nil {
		return fail(err)
	}
	c, err := l.host.ListenUDP(family, at)
	if err != nil {
		return fail(err)
	}
	return c, nil
}

// Ping sends ICMP echo requests to a machine, by its name or its address, one a second until an answer comes. It
// returns the time between a request and its answer, or the cause of ctx if there was none.
func (l *Lan) Ping(ctx context.Context, host string) (time.Duration, error) {
	to, err := l.resolveHost(netstack.Both, host)
	if err != nil {
		return 0, fmt.Errorf("lan: ping %s: %w", host, err)
	}
	d, err := l.host.Ping(ctx, to)
	if err != nil {
		return 0, fmt.Errorf("lan: ping %s: %w", host, err)
	}
	return d, nil
}

// Transport returns a transport for package net/http whose connections go to machines on the lan. URLs have the names
// of machines: http://server:8080/.
func (l *Lan) Transport() *http.Transport { return &http.Transport{DialContext: l.Dial} }

// Route makes this process send packets for a network to a machine on the lan that routes them.
func (l *Lan) Route(to netip.Prefix, router netip.Addr) error {
	if err := l.host.AddRoute(to, router); err != nil {
		return fmt.Errorf("lan: %w", err)
	}
	return nil
}
