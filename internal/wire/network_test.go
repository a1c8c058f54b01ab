package wire

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var someNetwork = Network{Name: "server", Cards: []Card{
	{MAC: [6]byte{2, 1}, Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/24"), netip.MustParsePrefix("2001:db8::1/64")},
		Hosts: []netip.Addr{netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("2001:db8::2")}},
	{MAC: [6]byte{2, 2}},
}}

func TestNetworksAreDecodedAsTheyWereEncoded(t *testing.T) {
	for _, n := range []Network{{}, someNetwork} {
		require.NoError(t, n.Check())
		got, err := DecodeNetwork(n.Encode())
		require.NoError(t, err)
		require.Equal(t, n, got)
	}
	whole := someNetwork.Encode()
	for size := range whole {
		_, err := DecodeNetwork(whole[:size])
		require.Error(t, err, "the first %d bytes", size)
	}
	_, err := DecodeNetwork(append(whole, 0))
	require.Error(t, err)
}

func TestNetworksHaveLimits(t *testing.T) {
	many := make([]netip.Prefix, maxAddresses+1)
	for _, n := range []Network{
		{Name: strings.Repeat("x", maxName+1)}, {Cards: make([]Card, maxCards+1)}, {Cards: []Card{{Addresses: many}}},
		{Cards: []Card{{Addresses: make([]netip.Prefix, 1)}}}, {Cards: []Card{{Hosts: make([]netip.Addr, 1)}}},
	} {
		require.Error(t, n.Check())
	}
}

func FuzzNetwork(f *testing.F) {
	f.Add(someNetwork.Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		if n, err := DecodeNetwork(b); err == nil {
			require.NoError(t, n.Check())
			require.Equal(t, b, n.Encode())
		}
	})
}
