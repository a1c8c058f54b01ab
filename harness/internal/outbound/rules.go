// Package outbound decides what the guest of an emulated machine may reach over QEMU's user
// network. QEMU's own choice, restrict=on, also drops the answers of forwarded UDP ports, so the
// harness stands between the guest and the network: QEMU hands it each frame that the guest
// sends, and it gives back those that may pass.
//
// The rules hold for libslirp, the user network of QEMU, and lean on what it does with a frame:
// it opens a connection only for a segment that has SYN alone among SYN, ACK, FIN, RST and URG;
// it answers DHCP, ARP, neighbor discovery and a ping of its own address itself; and it knows no
// IPv6 extension headers.
package outbound

import (
	"encoding/binary"
	"net/netip"
)

// Rules say what a guest may reach besides those that have contacted it: the peers of
// forwarded ports always get their answers.
type Rules struct {
	// Gateway and Gateway6 are the network's own addresses, behind which libslirp has the
	// host's loopback.
	Gateway, Gateway6 netip.Addr

	// Host lets everything through to these addresses.
	Host bool
}

// A verdict is what becomes of a frame.
type verdict int

const (
	drop verdict = iota
	pass
	refuse // a TCP connection: the guest gets a reset
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

	udpHeader  = 8
	tcpHeader  = 20
	tcpFlags   = 13 // where they are
	flagFIN    = 0x01
	flagSYN    = 0x02
	flagACK    = 0x10
	portBOOTPS = 67

	icmp6Echo         = 128
	icmp6RouterAsks   = 133
	icmp6NeighborAsks = 135
	icmp6NeighborIs   = 136
)

// A packet is what the rules look at.
type packet struct {
	src, dst netip.Addr
	proto    byte
	later    bool   // a fragment that is not the first, so that payload has no header
	fragment bool   // any
	payload  []byte // the transport's header and what follows
}

// parse returns the packet of an Ethernet frame, whose type must be IPv4 or IPv6. It takes
// nothing that libslirp might read otherwise: options and extension headers are refused.
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
			later: fragment&offset != 0, fragment: fragment&(more|offset) != 0, payload: ip[ipv4Header:total],
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

// A flow is one direction of an exchange of datagrams.
type flow struct{ from, to netip.AddrPort }

// flow returns that of a datagram which has a header.
func (p packet) flow() (f flow, ok bool) {
	if p.proto != protoUDP || p.later || len(p.payload) < udpHeader {
		return f, false
	}
	return flow{
		netip.AddrPortFrom(p.src, binary.BigEndian.Uint16(p.payload)),
		netip.AddrPortFrom(p.dst, binary.BigEndian.Uint16(p.payload[2:])),
	}, true
}

// destination is where a connection or a datagram goes, if the packet tells.
func (p packet) destination() (network string, to netip.AddrPort, ok bool) {
	if p.later || len(p.payload) < 4 || (p.proto != protoTCP && p.proto != protoUDP) {
		return "", to, false
	}
	network = "tcp"
	if p.proto == protoUDP {
		network = "udp"
	}
	return network, netip.AddrPortFrom(p.dst, binary.BigEndian.Uint16(p.payload[2:])), true
}

// judge decides about a frame of the guest. An answer is a datagram to somebody who has sent one
// to where this one comes from.
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
		// A later fragment can change nothing of the header: offsets count in 8 bytes. Without
		// a first one it comes to nothing.
		if p.later {
			return pass
		}
		f, ok := p.flow()
		if !ok {
			return drop
		}
		isDHCP := !p.fragment && f.to.Port() == portBOOTPS && (p.dst == everybody || p.dst == r.Gateway)
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
		case icmp6RouterAsks, icmp6NeighborAsks, icmp6NeighborIs:
			return pass
		case icmp6Echo:
			if toGateway {
				return pass
			}
		}
	}
	return drop
}

// spoil makes a segment that opens a connection one that libslirp answers with a reset: it sets
// FIN beside SYN, and mends the checksum (RFC 1624).
func spoil(frame []byte) {
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
