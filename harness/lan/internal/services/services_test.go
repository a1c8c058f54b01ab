package services

import (
	"net"
	"net/netip"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/stretchr/testify/require"
	"golang.org/x/net/dns/dnsmessage"
)

var (
	client  = [6]byte{2, 0, 0, 0, 0, 1}
	network = Network{
		MAC:  [6]byte{2, 0, 0, 0, 0, 2},
		Host: netip.MustParsePrefix("192.0.2.2/24"), Host6: netip.MustParsePrefix("2001:db8::2/64"),
		Lease: func(mac [6]byte) (netip.Addr, string, bool) {
			return netip.MustParseAddr("192.0.2.1"), "server", mac == client
		},
	}
)

// request returns the frame of a client's DHCP message.
func request(mac [6]byte, kind layers.DHCPMsgType, options ...layers.DHCPOption) []byte {
	dhcp := &layers.DHCPv4{Operation: layers.DHCPOpRequest, HardwareType: layers.LinkTypeEthernet, HardwareLen: 6, Xid: 77, ClientHWAddr: mac[:],
		Options: append(layers.DHCPOptions{layers.NewDHCPOption(layers.DHCPOptMessageType, []byte{byte(kind)})}, options...)}
	dhcp.Options = append(dhcp.Options, layers.NewDHCPOption(layers.DHCPOptEnd, nil))
	ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolUDP, SrcIP: net.IPv4zero, DstIP: net.IPv4bcast}
	udp := &layers.UDP{SrcPort: clientPort, DstPort: serverPort}
	udp.SetNetworkLayerForChecksum(ip)
	return encode(&layers.Ethernet{SrcMAC: mac[:], DstMAC: layers.EthernetBroadcast, EthernetType: layers.EthernetTypeIPv4}, ip, udp, dhcp)
}

func dhcpOf(t *testing.T, frame []byte) (*layers.DHCPv4, map[layers.DHCPOpt][]byte) {
	p := decode(frame)
	require.NotNil(t, p)
	d, ok := p.Layer(layers.LayerTypeDHCPv4).(*layers.DHCPv4)
	require.True(t, ok, "%v", p)
	options := make(map[layers.DHCPOpt][]byte)
	for _, o := range d.Options {
		options[o.Type] = o.Data
	}
	return d, options
}

func TestAMachineGetsItsLease(t *testing.T) {
	offer, options := dhcpOf(t, network.Answer(request(client, layers.DHCPMsgTypeDiscover)))
	require.Equal(t, []byte{byte(layers.DHCPMsgTypeOffer)}, options[layers.DHCPOptMessageType])
	require.Equal(t, "192.0.2.1", offer.YourClientIP.String())
	require.EqualValues(t, 77, offer.Xid)
	require.Equal(t, []byte{255, 255, 255, 0}, options[layers.DHCPOptSubnetMask])
	require.Equal(t, []byte{192, 0, 2, 2}, options[layers.DHCPOptDNS])
	require.Equal(t, "server", string(options[layers.DHCPOptHostname]))
	require.NotContains(t, options, layers.DHCPOptRouter)

	wanted := layers.NewDHCPOption(layers.DHCPOptRequestIP, []byte{192, 0, 2, 1})
	_, options = dhcpOf(t, network.Answer(request(client, layers.DHCPMsgTypeRequest, wanted)))
	require.Equal(t, []byte{byte(layers.DHCPMsgTypeAck)}, options[layers.DHCPOptMessageType])
}

func TestAForeignAddressIsRefused(t *testing.T) {
	wanted := layers.NewDHCPOption(layers.DHCPOptRequestIP, []byte{192, 0, 2, 9})
	nak, options := dhcpOf(t, network.Answer(request(client, layers.DHCPMsgTypeRequest, wanted)))
	require.Equal(t, []byte{byte(layers.DHCPMsgTypeNak)}, options[layers.DHCPOptMessageType])
	require.Equal(t, "0.0.0.0", nak.YourClientIP.String())
}

func TestNobodyAnswersForOthers(t *testing.T) {
	require.Nil(t, network.Answer(request([6]byte{2, 9, 9, 9, 9, 9}, layers.DHCPMsgTypeDiscover)), "a machine without a lease")
	other := layers.NewDHCPOption(layers.DHCPOptServerID, []byte{192, 0, 2, 99})
	require.Nil(t, network.Answer(request(client, layers.DHCPMsgTypeRequest, other)), "another server")
	require.Nil(t, network.Answer(request(client, layers.DHCPMsgTypeRelease)))
	require.Nil(t, Network{MAC: network.MAC, Host6: network.Host6}.Answer(request(client, layers.DHCPMsgTypeDiscover)), "no IPv4")
}

func solicitation(hops uint8) []byte {
	ip := &layers.IPv6{Version: 6, HopLimit: hops, NextHeader: layers.IPProtocolICMPv6, SrcIP: linkLocal(client), DstIP: net.IPv6linklocalallrouters}
	icmp := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(layers.ICMPv6TypeRouterSolicitation, 0)}
	icmp.SetNetworkLayerForChecksum(ip)
	return encode(&layers.Ethernet{SrcMAC: client[:], DstMAC: net.HardwareAddr{0x33, 0x33, 0, 0, 0, 2}, EthernetType: layers.EthernetTypeIPv6},
		ip, icmp, &layers.ICMPv6RouterSolicitation{})
}

func TestASolicitationIsAnsweredByThePrefix(t *testing.T) {
	p := decode(network.Answer(solicitation(255)))
	require.NotNil(t, p)
	ra, ok := p.Layer(layers.LayerTypeICMPv6RouterAdvertisement).(*layers.ICMPv6RouterAdvertisement)
	require.True(t, ok)
	require.Zero(t, ra.RouterLifetime)
	options := make(map[layers.ICMPv6Opt][]byte)
	for _, o := range ra.Options {
		options[o.Type] = o.Data
	}
	prefix := options[layers.ICMPv6OptPrefixInfo]
	require.Len(t, prefix, 30)
	require.EqualValues(t, 64, prefix[0])
	require.Equal(t, netip.MustParseAddr("2001:db8::").AsSlice(), prefix[14:])
	require.Equal(t, netip.MustParseAddr("2001:db8::2").AsSlice(), options[25][6:])

	require.Nil(t, network.Answer(solicitation(64)), "from another network")
}

func TestNamesHaveAddresses(t *testing.T) {
	lookup := func(name string) ([]netip.Addr, bool) {
		return []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}, name == "server"
	}
	ask := func(name string, kind dnsmessage.Type) dnsmessage.Message {
		q := dnsmessage.Message{Header: dnsmessage.Header{ID: 5, RecursionDesired: true},
			Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(name), Type: kind, Class: dnsmessage.ClassINET}}}
		packed, err := q.Pack()
		require.NoError(t, err)
		var answer dnsmessage.Message
		require.NoError(t, answer.Unpack(AnswerName(packed, lookup)))
		require.True(t, answer.Response)
		require.EqualValues(t, 5, answer.ID)
		require.Nil(t, AnswerName(AnswerName(packed, lookup), lookup), "an answer is no query")
		return answer
	}
	a := ask("Server.", dnsmessage.TypeA)
	require.Len(t, a.Answers, 1)
	require.Equal(t, &dnsmessage.AResource{A: [4]byte{192, 0, 2, 1}}, a.Answers[0].Body)
	a = ask("server.", dnsmessage.TypeAAAA)
	require.Len(t, a.Answers, 1)
	require.Equal(t, netip.MustParseAddr("2001:db8::1").As16(), a.Answers[0].Body.(*dnsmessage.AAAAResource).AAAA)
	require.Len(t, ask("server.", dnsmessage.TypeALL).Answers, 2)
	a = ask("server.", dnsmessage.TypeMX)
	require.Empty(t, a.Answers)
	require.Equal(t, dnsmessage.RCodeSuccess, a.RCode)
	require.Equal(t, dnsmessage.RCodeNameError, ask("nobody.", dnsmessage.TypeA).RCode)
}

func FuzzAnswer(f *testing.F) {
	f.Add(request(client, layers.DHCPMsgTypeDiscover))
	f.Add(solicitation(255))
	f.Fuzz(func(t *testing.T, frame []byte) {
		if answer := network.Answer(frame); answer != nil {
			p := gopacket.NewPacket(answer, layers.LayerTypeEthernet, gopacket.Default)
			require.Nil(t, p.ErrorLayer())
		}
		AnswerName(frame, func(string) ([]netip.Addr, bool) { return []netip.Addr{netip.MustParseAddr("192.0.2.1")}, true })
	})
}
