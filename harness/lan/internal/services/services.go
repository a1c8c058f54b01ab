// Package services answers what machines ask when they join a segment: DHCPv4 (RFC 2131), IPv6 router solicitations
// (RFC 4861) and names (RFC 1035). DHCP and router solicitations come from machines without an address, so the
// answers are made of whole frames.
package services

import (
	"encoding/binary"
	"net"
	"net/netip"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

// A Network is the segment as its own services describe it. A prefix that is invalid stands for a segment without
// that family.
type Network struct {
	MAC   [6]byte      // the host's
	Host  netip.Prefix // the host's IPv4 address, with the size of the network
	Host6 netip.Prefix

	// Lease returns the IPv4 address of the machine with a hardware address, and the machine's name if it has one.
	Lease func(mac [6]byte) (address netip.Addr, name string, ok bool)
}

const (
	leaseTime    = 24 * time.Hour
	infinite     = 0xffffffff // of the lifetimes of a prefix
	hopLimit     = 255        // of neighbor discovery; RFC 4861 drops other values
	serverPort   = 67
	clientPort   = 68
	optionNameV4 = layers.DHCPOptHostname
)

// Answer returns the frame that answers a frame, or nil if the services have nothing to answer.
func (n Network) Answer(frame []byte) []byte {
	if len(frame) < 14 {
		return nil
	}
	switch layers.EthernetType(binary.BigEndian.Uint16(frame[12:])) {
	case layers.EthernetTypeIPv4:
		// Most packets are not for the services, and decoding them all would take long.
		if ip := frame[14:]; !n.Host.IsValid() || len(ip) < 20 || ip[9] != byte(layers.IPProtocolUDP) {
			return nil
		} else if header := int(ip[0]&15) * 4; len(ip) < header+8 || binary.BigEndian.Uint16(ip[header+2:]) != serverPort {
			return nil
		}
		return n.answerDHCP(frame)
	case layers.EthernetTypeIPv6:
		if ip := frame[14:]; !n.Host6.IsValid() || len(ip) < 41 || ip[6] != byte(layers.IPProtocolICMPv6) || ip[40] != layers.ICMPv6TypeRouterSolicitation {
			return nil
		}
		return n.answerSolicitation(frame)
	}
	return nil
}

// decode decodes a frame whose layers are all intact, or returns nil.
func decode(frame []byte) gopacket.Packet {
	p := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.DecodeOptions{NoCopy: true})
	if p.ErrorLayer() != nil || p.Metadata().Truncated {
		return nil
	}
	return p
}

func (n Network) answerDHCP(frame []byte) []byte {
	p := decode(frame)
	if p == nil {
		return nil
	}
	asked, ok := p.Layer(layers.LayerTypeDHCPv4).(*layers.DHCPv4)
	if !ok || asked.Operation != layers.DHCPOpRequest || asked.HardwareType != layers.LinkTypeEthernet || len(asked.ClientHWAddr) != 6 {
		return nil
	}
	var kind layers.DHCPMsgType
	wanted, server := asked.ClientIP, net.IP(nil)
	for _, o := range asked.Options {
		switch {
		case o.Type == layers.DHCPOptMessageType && len(o.Data) == 1:
			kind = layers.DHCPMsgType(o.Data[0])
		case o.Type == layers.DHCPOptRequestIP && len(o.Data) == 4:
			wanted = o.Data
		case o.Type == layers.DHCPOptServerID && len(o.Data) == 4:
			server = o.Data
		}
	}
	host := net.IP(n.Host.Addr().AsSlice())
	if server != nil && !server.Equal(host) {
		return nil // the client has chosen another server
	}
	mac := [6]byte(asked.ClientHWAddr)
	address, name, ok := n.Lease(mac)
	if !ok {
		return nil
	}
	own := net.IP(address.AsSlice())
	answer := layers.DHCPMsgTypeAck
	switch kind {
	case layers.DHCPMsgTypeDiscover:
		answer = layers.DHCPMsgTypeOffer
	case layers.DHCPMsgTypeRequest:
		if wanted != nil && !wanted.IsUnspecified() && !wanted.Equal(own) {
			answer = layers.DHCPMsgTypeNak
		}
	case layers.DHCPMsgTypeInform:
	default:
		return nil
	}
	return n.dhcp(asked, answer, own, name)
}

// dhcp returns the frame of an answer. It is a broadcast, which also reaches a client without an address.
func (n Network) dhcp(asked *layers.DHCPv4, kind layers.DHCPMsgType, own net.IP, name string) []byte {
	host := net.IP(n.Host.Addr().AsSlice())
	reply := &layers.DHCPv4{
		Operation: layers.DHCPOpReply, HardwareType: layers.LinkTypeEthernet, HardwareLen: 6, Xid: asked.Xid, Flags: asked.Flags,
		ClientHWAddr: asked.ClientHWAddr, NextServerIP: host,
		Options: layers.DHCPOptions{
			layers.NewDHCPOption(layers.DHCPOptMessageType, []byte{byte(kind)}),
			layers.NewDHCPOption(layers.DHCPOptServerID, host.To4()),
		},
	}
	if kind != layers.DHCPMsgTypeNak {
		reply.ClientIP = asked.ClientIP
		reply.YourClientIP = own
		seconds := binary.BigEndian.AppendUint32(nil, uint32(leaseTime/time.Second))
		mask := net.CIDRMask(n.Host.Bits(), 32)
		reply.Options = append(reply.Options,
			layers.NewDHCPOption(layers.DHCPOptLeaseTime, seconds),
			layers.NewDHCPOption(layers.DHCPOptSubnetMask, mask),
			layers.NewDHCPOption(layers.DHCPOptDNS, host.To4()))
		if name != "" {
			reply.Options = append(reply.Options, layers.NewDHCPOption(optionNameV4, []byte(name)))
		}
	}
	reply.Options = append(reply.Options, layers.NewDHCPOption(layers.DHCPOptEnd, nil))
	ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolUDP, SrcIP: host, DstIP: net.IPv4bcast}
	udp := &layers.UDP{SrcPort: serverPort, DstPort: clientPort}
	udp.SetNetworkLayerForChecksum(ip)
	return encode(&layers.Ethernet{SrcMAC: n.MAC[:], DstMAC: layers.EthernetBroadcast, EthernetType: layers.EthernetTypeIPv4}, ip, udp, reply)
}

func (n Network) answerSolicitation(frame []byte) []byte {
	p := decode(frame)
	if p == nil {
		return nil
	}
	ip, ok := p.NetworkLayer().(*layers.IPv6)
	if !ok || ip.HopLimit != hopLimit || p.Layer(layers.LayerTypeICMPv6RouterSolicitation) == nil {
		return nil
	}
	return n.Advertisement()
}

// Advertisement returns the frame of a router advertisement to all machines. It names the prefix, from which machines
// make addresses, and the host as name server. The host routes nothing, so it is no default router.
func (n Network) Advertisement() []byte {
	prefix := n.Host6.Masked()
	information := []byte{byte(prefix.Bits()), 0xc0} // on the link, and for addresses
	information = binary.BigEndian.AppendUint32(information, infinite)
	information = binary.BigEndian.AppendUint32(information, infinite)
	information = append(information, 0, 0, 0, 0)
	information = append(information, prefix.Addr().AsSlice()...)
	server := binary.BigEndian.AppendUint32([]byte{0, 0}, infinite)
	server = append(server, n.Host6.Addr().AsSlice()...)
	const nameServer = layers.ICMPv6Opt(25) // RFC 8106
	ra := &layers.ICMPv6RouterAdvertisement{
		Options: layers.ICMPv6Options{
			{Type: layers.ICMPv6OptSourceAddress, Data: n.MAC[:]},
			{Type: layers.ICMPv6OptPrefixInfo, Data: information},
			{Type: nameServer, Data: server},
		},
	}
	ip := &layers.IPv6{Version: 6, HopLimit: hopLimit, NextHeader: layers.IPProtocolICMPv6, SrcIP: linkLocal(n.MAC), DstIP: net.IPv6linklocalallnodes}
	icmp := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(layers.ICMPv6TypeRouterAdvertisement, 0)}
	icmp.SetNetworkLayerForChecksum(ip)
	all := net.HardwareAddr{0x33, 0x33, 0, 0, 0, 1}
	return encode(&layers.Ethernet{SrcMAC: n.MAC[:], DstMAC: all, EthernetType: layers.EthernetTypeIPv6}, ip, icmp, ra)
}

// linkLocal returns the link-local address of a card (RFC 4291, appendix A).
func linkLocal(mac [6]byte) net.IP {
	return net.IP{0xfe, 0x80, 0, 0, 0, 0, 0, 0, mac[0] ^ 2, mac[1], mac[2], 0xff, 0xfe, mac[3], mac[4], mac[5]}
}

// encode returns the frame of some layers, or nil if they do not fit together.
func encode(all ...gopacket.SerializableLayer) []byte {
	b := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, all...); err != nil {
		return nil
	}
	return b.Bytes()
}
