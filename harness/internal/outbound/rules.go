// Package outbound filters what the guest of an emulated machine sends over QEMU's user network.
// QEMU's own option, restrict=on, also drops the answers from forwarded UDP ports. The harness
// therefore stands between the guest and the network: QEMU writes each frame of the guest to a
// [Filter], and the filter returns the frames that its [Rules] let pass.
//
// The rules are for libslirp, QEMU's user network, and depend on what libslirp does with a frame:
//
//   - It opens a connection only for a segment that has SYN alone among SYN, ACK, FIN, RST and URG.
//   - It answers DHCP, ARP, neighbor discovery and a ping of its own address itself.
//   - It ignores packets with IPv6 extension headers.
package outbound

import (
	"encoding/binary"
	"net/netip"
)

// Rules say what a guest may reach. A guest may always answer the clients of its forwarded ports.
type Rules struct {
	// Gateway and Gateway6 are the network's own addresses. libslirp forwards connections to
	// them to the host's loopback.
	Gateway, Gateway6 netip.Addr

	// Host lets the guest send everything to Gateway and Gateway6.
	Host bool
}

// A verdict is what the filter does with a frame.
type verdict int

const (
	drop verdict = iota
	pass
	refuse // only for a segment that opens a TCP connection: the guest gets a reset
)

const (
	etherHeader = 14
	etherARP    = 0x0806
	etherIPv4   = 0x0800
	etherIPv6   = 0x86dd

	ipv4Header = 20
	ipv6Header = 40

	protoICMP   = 1
	protoTCP    = 6
	protoUDP    = 17
	protoICMPv6 = 58

	udpHeader = 8
	tcpHeader = 20
	tcpFlags  = 13 // the offset of the flags in the header
	flagFIN   = 0x01
	flagSYN   = 0x02
	flagACK   = 0x10
	portDHCP  = 67

	icmp6EchoRequest           = 128
	icmp6RouterSolicitation    = 133
	icmp6NeighborSolicitation  = 135
	icmp6NeighborAdvertisement = 136
)

// A packet has the parts of an IP packet that the rules use.
type packet struct {
	src, dst netip.Addr
	proto    byte
	fragment bool   // a fragment of a packet
	notFirst bool   // a fragment other than the first: payload begins with no header
	payload  []byte // the transport header and its data, or a fragment of them
}

// parse returns the packet in an Ethernet frame of type IPv4 or IPv6. It refuses what libslirp
// might read in another way: IPv4 options, and lengths that contradict each other.
func parse(frame []byte) (p packet, ok bool) {
	if len(frame) < etherHeader {
		return p, false
	}
	ip := frame[etherHeader:]
	switch binary.BigEndian.Uint16(frame[12:]) {
	case etherIPv4:
		if len(ip) < ipv4Header || ip[0] != 4<<4|ipv4Header/4 {
			return p, false
		}
		total := int(binary.BigEndian.Uint16(ip[2:]))
		if total < ipv4Header || total > len(ip) {
			return p, false
		}
		const more, offset = 0x2000, 0x1fff
		fragment := binary.BigEndian.Uint16(ip[6:])
		return packet{
			src: netip.AddrFrom4([4]byte(ip[12:])), dst: netip.AddrFrom4([4]byte(ip[16:])), proto: ip[9],
			notFirst: fragment&offset != 0, fragment: fragment&(more|offset) != 0, payload: ip[ipv4Header:total],
		}, true
	case etherIPv6:
		if len(ip) < ipv6Header || ip[0]>>4 != 6 {
			return p, false
		}
		total := ipv6Header + int(binary.BigEndian.Uint16(ip[4:]))
		if total > len(ip) {
			return p, false
		}
		return packet{
			src: netip.AddrFrom16([16]byte(ip[8:])), dst: netip.AddrFrom16([16]byte(ip[24:])), proto: ip[6],
			payload: ip[ipv6Header:total],
		}, true
	}
	return p, false
}

// A flow is one direction of the UDP traffic between two sockets.
type flow struct{ from, to netip.AddrPort }

// flow returns the flow of a UDP packet; ok is false if the packet holds no UDP header.
func (p packet) flow() (f flow, ok bool) {
	if p.proto != protoUDP || p.notFirst || len(p.payload) < udpHeader {
		return f, false
	}
	return flow{
		netip.AddrPortFrom(p.src, binary.BigEndian.Uint16(p.payload)),
		netip.AddrPortFrom(p.dst, binary.BigEndian.Uint16(p.payload[2:])),
	}, true
}

// destination returns where a TCP segment or a datagram goes; ok is false if the packet holds no port.
func (p packet) destination() (network string, to netip.AddrPort, ok bool) {
	if p.notFirst || len(p.payload) < 4 || (p.proto != protoTCP && p.proto != protoUDP) {
		return "", to, false
	}
	network = "tcp"
	if p.proto == protoUDP {
		network = "udp"
	}
	return network, netip.AddrPortFrom(p.dst, binary.BigEndian.Uint16(p.payload[2:])), true
}

// judge returns the verdict on a frame that the guest sends. isAnswer reports whether the guest has
// received a datagram in the opposite direction of a flow.
func (r Rules) judge(frame []byte, isAnswer func(flow) bool) verdict {
	if len(frame) >= etherHeader && binary.BigEndian.Uint16(frame[12:]) == etherARP {
		return pass
	}
	p, ok := parse(frame)
	if !ok {
		return drop
	}
	toGateway := p.dst == r.Gateway || p.dst == r.Gateway6
	if toGateway && r.Host {
		return pass
	}
	switch p.proto {
	case protoTCP:
		// The second of two fragments could overwrite the flags of the first.
		if p.fragment || len(p.payload) < tcpHeader {
			return drop
		}
		if p.payload[tcpFlags]&(flagSYN|flagACK) == flagSYN {
			return refuse
		}
		return pass
	case protoUDP:
		// Offsets count in units of 8 bytes, so a later fragment cannot overwrite the UDP header.
		// libslirp delivers no fragment without the first one.
		if p.notFirst {
			return pass
		}
		f, ok := p.flow()
		if !ok {
			return drop
		}
		isDHCP := !p.fragment && f.to.Port() == portDHCP && (p.dst == broadcast || p.dst == r.Gateway)
		if isDHCP || isAnswer(f) {
			return pass
		}
	case protoICMP:
		if p.dst == r.Gateway {
			return pass
		}
	case protoICMPv6:
		if len(p.payload) == 0 {
			return drop
		}
		switch p.payload[0] {
		case icmp6RouterSolicitation, icmp6NeighborSolicitation, icmp6NeighborAdvertisement:
			return pass
		case icmp6EchoRequest:
			if toGateway {
				return pass
			}
		}
	}
	return drop
}

// refuseConnection changes a segment that opens a connection so that libslirp answers it with a
// reset: it sets FIN beside SYN, and updates the checksum (RFC 1624).
func refuseConnection(frame []byte) {
	p, _ := parse(frame)
	tcp := p.payload
	before := binary.BigEndian.Uint16(tcp[tcpFlags-1:])
	tcp[tcpFlags] |= flagFIN
	sum := uint32(^binary.BigEndian.Uint16(tcp[16:])) + uint32(^before) + uint32(binary.BigEndian.Uint16(tcp[tcpFlags-1:]))
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(tcp[16:], ^uint16(sum))
}
