package outbound

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
)

var (
	guest    = netip.MustParseAddr("192.0.2.1")
	gateway  = netip.MustParseAddr("192.0.2.2")
	dns      = netip.MustParseAddr("192.0.2.3")
	outside  = netip.MustParseAddr("198.51.100.1")
	guest6   = netip.MustParseAddr("2001:db8::1")
	gateway6 = netip.MustParseAddr("2001:db8::2")
	dns6     = netip.MustParseAddr("2001:db8::3")
	outside6 = netip.MustParseAddr("2001:db8:ffff::1")

	none = Rules{Gateway: gateway, Gateway6: gateway6}
	host = Rules{Gateway: gateway, Gateway6: gateway6, Host: true}
)

// frame returns an Ethernet frame with a packet from the guest to an address.
func frame(to netip.Addr, proto byte, payload []byte) []byte {
	f := make([]byte, etherHeader)
	if to.Is4() {
		binary.BigEndian.PutUint16(f[12:], etherIPv4)
		ip := make([]byte, ipv4Header)
		ip[0], ip[8], ip[9] = 0x45, 64, proto
		binary.BigEndian.PutUint16(ip[2:], uint16(ipv4Header+len(payload)))
		copy(ip[12:], guest.AsSlice())
		copy(ip[16:], to.AsSlice())
		return append(append(f, ip...), payload...)
	}
	binary.BigEndian.PutUint16(f[12:], etherIPv6)
	ip := make([]byte, ipv6Header)
	ip[0], ip[6], ip[7] = 6<<4, proto, 64
	binary.BigEndian.PutUint16(ip[4:], uint16(len(payload)))
	copy(ip[8:], guest6.AsSlice())
	copy(ip[24:], to.AsSlice())
	return append(append(f, ip...), payload...)
}

func tcp(to netip.Addr, port uint16, flags byte) []byte {
	segment := make([]byte, tcpHeader)
	binary.BigEndian.PutUint16(segment, 40000)
	binary.BigEndian.PutUint16(segment[2:], port)
	segment[12], segment[tcpFlags] = tcpHeader/4<<4, flags
	f := frame(to, protoTCP, segment)
	binary.BigEndian.PutUint16(f[len(f)-tcpHeader+16:], ^tcpSum(f))
	return f
}

// tcpSum returns the sum of a segment and its pseudo-header. All its bits are 1 if the checksum is right.
func tcpSum(frame []byte) uint16 {
	p, _ := parse(frame)
	var sum uint32
	for _, part := range [][]byte{p.src.AsSlice(), p.dst.AsSlice(), {0, p.proto}, p.payload} {
		for i := 0; i+1 < len(part); i += 2 {
			sum += uint32(binary.BigEndian.Uint16(part[i:]))
		}
	}
	sum += uint32(len(p.payload))
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}

func udp(to netip.Addr, from, port uint16) []byte {
	datagram := make([]byte, udpHeader+4)
	binary.BigEndian.PutUint16(datagram, from)
	binary.BigEndian.PutUint16(datagram[2:], port)
	binary.BigEndian.PutUint16(datagram[4:], uint16(len(datagram)))
	return frame(to, protoUDP, datagram)
}

// fragment turns the IPv4 packet in a frame into a fragment, and returns the frame.
func fragment(f []byte, offset uint16, more bool) []byte {
	if more {
		offset |= 0x2000
	}
	binary.BigEndian.PutUint16(f[etherHeader+6:], offset)
	return f
}

// isAnswer reports whether a flow goes from the guest's port 4242 to the gateway's 50000.
func isAnswer(f flow) bool {
	return f == flow{netip.AddrPortFrom(guest, 4242), netip.AddrPortFrom(gateway, 50000)}
}

func TestRulesJudgeFrames(t *testing.T) {
	arp := make([]byte, 42)
	binary.BigEndian.PutUint16(arp[12:], etherARP)
	for name, c := range map[string]struct {
		frame      []byte
		none, host verdict
	}{
		"nothing":               {nil, drop, drop},
		"half a header":         {make([]byte, 13), drop, drop},
		"ARP":                   {arp, pass, pass},
		"another type of frame": {append(make([]byte, 12), 0x88, 0xf8, 0, 0), drop, drop}, // NC-SI, which libslirp answers
		"a tagged frame":        {append(make([]byte, 12), 0x81, 0, 0, 1, 8, 0), drop, drop},

		"TCP to the gateway":                 {tcp(gateway, 80, flagSYN), refuse, pass},
		"TCP to the gateway, IPv6":           {tcp(gateway6, 80, flagSYN), refuse, pass},
		"TCP to the name server":             {tcp(dns, 53, flagSYN), refuse, refuse},
		"TCP to the outside":                 {tcp(outside, 80, flagSYN), refuse, refuse},
		"TCP to the outside, IPv6":           {tcp(outside6, 80, flagSYN), refuse, refuse},
		"TCP SYN with ECN and PSH":           {tcp(outside, 80, flagSYN|0xc8), refuse, refuse},
		"TCP of a connection":                {tcp(gateway, 50000, flagACK), pass, pass},
		"TCP that accepts a connection":      {tcp(gateway, 50000, flagSYN|flagACK), pass, pass},
		"TCP reset":                          {tcp(gateway, 50000, 4), pass, pass},
		"TCP with a truncated header":        {frame(outside, protoTCP, make([]byte, tcpHeader-1)), drop, drop},
		"TCP, first fragment":                {fragment(tcp(outside, 80, flagACK), 0, true), drop, drop},
		"TCP, second fragment":               {fragment(tcp(outside, 80, flagSYN), 1, false), drop, drop},
		"TCP to the gateway, first fragment": {fragment(tcp(gateway, 80, flagACK), 0, true), drop, pass},

		"UDP to the gateway":                 {udp(gateway, 4242, 53), drop, pass},
		"UDP to the gateway, IPv6":           {udp(gateway6, 4242, 53), drop, pass},
		"UDP to the name server":             {udp(dns, 4242, 53), drop, drop},
		"UDP to the name server, IPv6":       {udp(dns6, 4242, 53), drop, drop},
		"UDP to the outside":                 {udp(outside, 4242, 53), drop, drop},
		"an answer of the guest":             {udp(gateway, 4242, 50000), pass, pass},
		"an answer to another port":          {udp(gateway, 4242, 50001), drop, pass},
		"an answer to another address":       {udp(outside, 4242, 50000), drop, drop},
		"an answer from another port":        {udp(gateway, 4243, 50000), drop, pass},
		"an answer, first fragment":          {fragment(udp(gateway, 4242, 50000), 0, true), pass, pass},
		"UDP to the gateway, first fragment": {fragment(udp(gateway, 4242, 53), 0, true), drop, pass},
		"UDP, a later fragment":              {fragment(udp(outside, 4242, 53), 1, true), pass, pass},
		"UDP with a truncated header":        {frame(gateway, protoUDP, make([]byte, 7)), drop, pass},
		"DHCP to the broadcast address":      {udp(broadcast, 68, 67), pass, pass},
		"DHCP to the gateway":                {udp(gateway, 68, 67), pass, pass},
		"DHCP to another server":             {udp(outside, 68, 67), drop, drop},
		"a fragment with DHCP's port":        {fragment(udp(gateway, 68, 67), 0, true), drop, pass},
		"DNS to the broadcast address":       {udp(broadcast, 68, 53), drop, drop},
		"UDP behind a routing header":        {frame(outside6, 43, udp(outside6, 1, 53)), drop, drop},

		"ping of the gateway":              {frame(gateway, protoICMP, []byte{8, 0, 0, 0}), pass, pass},
		"ping of the outside":              {frame(outside, protoICMP, []byte{8, 0, 0, 0}), drop, drop},
		"ping of the gateway, IPv6":        {frame(gateway6, protoICMPv6, []byte{icmp6EchoRequest, 0, 0, 0}), pass, pass},
		"ping of the outside, IPv6":        {frame(outside6, protoICMPv6, []byte{icmp6EchoRequest, 0, 0, 0}), drop, drop},
		"neighbor solicitation":            {frame(outside6, protoICMPv6, []byte{icmp6NeighborSolicitation}), pass, pass},
		"ICMPv6 without a header":          {frame(outside6, protoICMPv6, nil), drop, drop},
		"ICMPv6 redirect":                  {frame(outside6, protoICMPv6, []byte{137}), drop, drop},
		"another protocol":                 {frame(outside, 132, make([]byte, 40)), drop, drop},
		"another protocol, to the gateway": {frame(gateway, 132, make([]byte, 40)), drop, pass},
	} {
		require.Equal(t, c.none, none.judge(c.frame, isAnswer), "%s, when nothing is allowed", name)
		require.Equal(t, c.host, host.judge(c.frame, isAnswer), "%s, when the host is allowed", name)
	}
}

// libslirp might read such packets in another way than parse.
func TestPacketsWithOddHeadersAreDropped(t *testing.T) {
	for name, change := range map[string]func(ip []byte){
		"options":                    func(ip []byte) { ip[0] = 0x46 },
		"a header that is too short": func(ip []byte) { ip[0] = 0x44 },
		"another version":            func(ip []byte) { ip[0] = 0x65 },
		"a length beyond the frame":  func(ip []byte) { binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)+1)) },
		"a length within the header": func(ip []byte) { binary.BigEndian.PutUint16(ip[2:], ipv4Header-1) },
		"a length that cuts TCP":     func(ip []byte) { binary.BigEndian.PutUint16(ip[2:], ipv4Header+tcpFlags) },
	} {
		f := tcp(gateway, 50000, flagACK)
		require.Equal(t, pass, none.judge(f, isAnswer))
		change(f[etherHeader:])
		require.Equal(t, drop, none.judge(f, isAnswer), name)
	}
	f := tcp(gateway6, 50000, flagACK)
	binary.BigEndian.PutUint16(f[etherHeader+4:], tcpHeader+1)
	require.Equal(t, drop, none.judge(f, isAnswer), "a length beyond the frame, IPv6")
}

// libslirp answers a segment with SYN and FIN with a reset, if the checksum is right.
func TestARefusedConnectionHasSYNAndFINAndItsChecksum(t *testing.T) {
	for _, to := range []netip.Addr{gateway, gateway6, outside, outside6} {
		for port := range uint16(1000) {
			f := tcp(to, port*65, flagSYN)
			require.EqualValues(t, 0xffff, tcpSum(f))
			refuseConnection(f)
			require.EqualValues(t, 0xffff, tcpSum(f), "port %d", port*65)
			p, _ := parse(f)
			require.EqualValues(t, flagSYN|flagFIN, p.payload[tcpFlags])
		}
	}
}

// FuzzJudge looks for frames that make judge panic, and for frames that pass although libslirp would
// open a connection for them. It does not use parse to find out what libslirp would do.
func FuzzJudge(f *testing.F) {
	for _, seed := range [][]byte{tcp(outside, 80, flagSYN), tcp(outside6, 80, flagSYN), udp(gateway, 4242, 50000),
		udp(broadcast, 68, 67), fragment(udp(outside, 1, 2), 1, true), frame(outside6, protoICMPv6, []byte{icmp6EchoRequest})} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		verdict := none.judge(frame, func(flow) bool { return false })
		if verdict == drop {
			return
		}
		if verdict == refuse {
			refuseConnection(frame)
		}
		opens := false
		switch binary.BigEndian.Uint16(frame[12:]) {
		case etherIPv4:
			ip := frame[etherHeader:]
			header := int(ip[0]&15) * 4
			first := binary.BigEndian.Uint16(ip[6:])&0x1fff == 0
			switch ip[9] {
			case protoTCP:
				opens = first && ip[header+tcpFlags]&0x37 == flagSYN
			case protoUDP:
				opens = first && binary.BigEndian.Uint16(ip[header+2:]) != portDHCP
			case protoICMP:
				opens = netip.AddrFrom4([4]byte(ip[16:])) != gateway
			default:
				opens = true
			}
		case etherIPv6:
			ip := frame[etherHeader:]
			switch ip[6] {
			case protoTCP:
				opens = ip[ipv6Header+tcpFlags]&0x37 == flagSYN
			case protoICMPv6:
				opens = ip[ipv6Header] == icmp6EchoRequest && netip.AddrFrom16([16]byte(ip[24:])) != gateway6
			default:
				opens = true
			}
		}
		if opens {
			t.Fatalf("%v: % x", verdict, frame)
		}
	})
}
