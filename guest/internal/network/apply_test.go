package network

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"guesthouse.example/internal/wire"
)

func TestTheFilesNameTheMachineAndTheHostOfEachNetwork(t *testing.T) {
	router := wire.Network{Name: "router", Cards: []wire.Card{
		{Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.3/24"), netip.MustParsePrefix("2001:db8::3/64")},
			Hosts: []netip.Addr{netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("2001:db8::2")}},
		{Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/24")}, Hosts: []netip.Addr{netip.MustParseAddr("10.0.0.2")}},
	}}
	require.Equal(t, "127.0.0.1 localhost\n::1 localhost\n192.0.2.3 router guest\n2001:db8::3 router guest\n10.0.0.1 router guest\n192.0.2.2 host\n", hostsOf(router))
	require.Equal(t, "nameserver 192.0.2.2\nnameserver 10.0.0.2\noptions timeout:1 attempts:2\n", resolverOf(router))
	guest := wire.Network{Name: "guest", Cards: []wire.Card{{Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/24")}}}}
	require.Equal(t, "127.0.0.1 localhost\n::1 localhost\n192.0.2.1 guest\n", hostsOf(guest))
	require.Empty(t, resolverOf(guest))
}

func TestALinkLocalAddressFollowsFromTheCard(t *testing.T) {
	require.Equal(t, "fe80::67:c0ff:fe00:201/64", linkLocal([6]byte{0x02, 0x67, 192, 0, 2, 1}).String())
}
