// Package netstack is a machine of this process on an Ethernet segment: a TCP/IP stack (gVisor's) with one card.
package netstack

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/ethernet"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
)

const (
	card = tcpip.NICID(1)
	mtu  = 1500

	// The buffers of a TCP connection in bytes. The default, 1 MiB, is the most as well.
	minBuffer, tcpBuffer = 4 << 10, 1 << 20
)

// A Stack is a machine on a segment. The methods may be called from any goroutine.
type Stack struct {
	stack *stack.Stack
	card  *endpoint
	life  life
}

// New returns a stack with a card. It calls send for the frames that the card sends; they are valid until send
// returns. It has all addresses, and reaches the networks of the first address of each family.
func New(mac [6]byte, addresses []netip.Prefix, send func(frames ...[]byte)) (*Stack, error) {
	// The other machines on the segment have other addresses, so their detection would only delay the start.
	noDetection := stack.DADConfigurations{}
	s := stack.New(stack.Options{
		NetworkProtocols: []stack.NetworkProtocolFactory{
			ipv4.NewProtocol,
			arp.NewProtocol,
			ipv6.NewProtocolWithOptions(ipv6.Options{
				DADConfigs:       noDetection,
				AutoGenLinkLocal: true,
			}),
		},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4, icmp.NewProtocol6},
	})
	e := &endpoint{mac: tcpip.LinkAddress(mac[:]), send: send, acks: newAcks(send)}
	n := &Stack{stack: s, card: e}
	n.life.conns = make(map[ender]bool)
	err := configure(s, e, addresses)
	if err != nil {
		s.Destroy()
		return nil, err
	}
	return n, nil
}

func configure(s *stack.Stack, e *endpoint, addresses []netip.Prefix) error {
	sack, moderate := tcpip.TCPSACKEnabled(true), tcpip.TCPModerateReceiveBufferOption(true)
	receive := tcpip.TCPReceiveBufferSizeRangeOption{Min: minBuffer, Default: tcpBuffer, Max: tcpBuffer}
	send := tcpip.TCPSendBufferSizeRangeOption{Min: minBuffer, Default: tcpBuffer, Max: tcpBuffer}
	for _, option := range []tcpip.SettableTransportProtocolOption{&sack, &moderate, &receive, &send} {
		if err := s.SetTransportProtocolOption(tcp.ProtocolNumber, option); err != nil {
			return fmt.Errorf("netstack: %v", err)
		}
	}
	if err := s.CreateNIC(card, ethernet.New(e)); err != nil {
		return fmt.Errorf("netstack: card: %v", err)
	}
	families := make(map[tcpip.NetworkProtocolNumber]bool)
	var routes []tcpip.Route
	for _, a := range addresses {
		protocol := protocolOf(a.Addr())
		err := s.AddProtocolAddress(card, tcpip.ProtocolAddress{
			Protocol:          protocol,
			AddressWithPrefix: tcpip.AddressWithPrefix{Address: tcpip.AddrFromSlice(a.Addr().AsSlice()), PrefixLen: a.Bits()},
		}, stack.AddressProperties{})
		if err != nil {
			return fmt.Errorf("netstack: address %v: %v", a, err)
		}
		if !families[protocol] {
			families[protocol] = true
			subnet := tcpip.AddressWithPrefix{Address: tcpip.AddrFromSlice(a.Addr().AsSlice()), PrefixLen: a.Bits()}.Subnet()
			routes = append(routes, tcpip.Route{Destination: subnet, NIC: card})
		}
	}
	routes = append(routes,
		tcpip.Route{Destination: header.IPv6LinkLocalPrefix.Subnet(), NIC: card},
		tcpip.Route{Destination: header.IPv4Broadcast.WithPrefix().Subnet(), NIC: card},
	)
	s.SetRouteTable(routes)
	return nil
}

func protocolOf(a netip.Addr) tcpip.NetworkProtocolNumber {
	if a.Is4() {
		return ipv4.ProtocolNumber
	}
	return ipv6.ProtocolNumber
}

// Deliver gives the card frames, which it copies.
func (n *Stack) Deliver(frames ...[]byte) {
	for _, frame := range frames {
		n.card.deliver(frame)
	}
}

// AddRoute makes the stack send packets for a network to a router on the segment.
func (n *Stack) AddRoute(to netip.Prefix, router netip.Addr) error {
	if !router.IsValid() || router.Is4() != to.Addr().Is4() {
		return fmt.Errorf("route to %v: router %v: it needs an address of the same family", to, router)
	}
	subnet := tcpip.AddressWithPrefix{Address: tcpip.AddrFromSlice(to.Masked().Addr().AsSlice()), PrefixLen: to.Bits()}.Subnet()
	n.stack.AddRoute(tcpip.Route{Destination: subnet, Gateway: tcpip.AddrFromSlice(router.AsSlice()), NIC: card})
	return nil
}

// Close ends all connections with the error why, and waits for the goroutines of the stack.
func (n *Stack) Close(why error) {
	n.life.end(why)
	n.stack.Destroy()
	n.card.acks.close()
}

// An endpoint is the card: a link without headers, which package ethernet adds.
type endpoint struct {
	mac  tcpip.LinkAddress
	send func(frames ...[]byte)
	acks *acks

	mu         sync.RWMutex
	dispatcher stack.NetworkDispatcher
}

var (
	_ stack.LinkEndpoint = (*endpoint)(nil)
	_ stack.GSOEndpoint  = (*endpoint)(nil)
)

func (e *endpoint) deliver(frame []byte) {
	e.mu.RLock()
	d := e.dispatcher
	e.mu.RUnlock()
	if d == nil || len(frame) < header.EthernetMinimumSize {
		return
	}
	to := tcpip.LinkAddress(frame[:6])
	if to != e.mac && to[0]&1 == 0 {
		return // the switch floods frames whose destination it does not know
	}
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(frame)})
	d.DeliverNetworkPacket(0, pkt) // package ethernet reads the protocol in the header
	pkt.DecRef()
}

// WritePackets sends packets that have an Ethernet header.
func (e *endpoint) WritePackets(packets stack.PacketBufferList) (int, tcpip.Error) {
	b := bursts.Get().(*burst)
	defer bursts.Put(b)
	for _, pkt := range packets.AsSlice() {
		b.add(pkt)
		if e.acks.hold(pkt, b.last()) {
			b.frames = b.frames[:len(b.frames)-1]
		}
	}
	if len(b.frames) > 0 {
		e.send(b.frames...)
	}
	b.reset()
	return packets.Len(), nil
}

// The stack gives the card segments of TCP of up to GSOMaxSize bytes, which the card divides into frames.
func (e *endpoint) SupportedGSO() stack.SupportedGSO { return stack.HostGSOSupported }
func (e *endpoint) GSOMaxSize() uint32               { return maxSegment }

func (e *endpoint) Attach(d stack.NetworkDispatcher) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.dispatcher = d
}

func (e *endpoint) IsAttached() bool {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return e.dispatcher != nil
}

func (e *endpoint) MTU() uint32                                  { return mtu + header.EthernetMinimumSize }
func (e *endpoint) SetMTU(uint32)                                {}
func (e *endpoint) MaxHeaderLength() uint16                      { return 0 }
func (e *endpoint) LinkAddress() tcpip.LinkAddress               { return e.mac }
func (e *endpoint) SetLinkAddress(tcpip.LinkAddress)             {}
func (e *endpoint) Capabilities() stack.LinkEndpointCapabilities { return 0 }
func (e *endpoint) Wait()                                        {}
func (e *endpoint) ARPHardwareType() header.ARPHardwareType      { return header.ARPHardwareEther }
func (e *endpoint) AddHeader(*stack.PacketBuffer)                {}
func (e *endpoint) ParseHeader(*stack.PacketBuffer) bool         { return true }
func (e *endpoint) Close()                                       {}
func (e *endpoint) SetOnCloseAction(func())                      {}

func failed(err tcpip.Error) error { return errors.New(err.String()) }
