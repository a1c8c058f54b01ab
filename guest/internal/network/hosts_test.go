package network

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestHostsNamesTheMachineAndItsHost(t *testing.T) {
	v4, v6 := netip.MustParsePrefix("192.0.2.1/24"), netip.MustParsePrefix("2001:db8::1/64")
	for name, c := range map[string]struct {
		own     []netip.Prefix
		routers []netip.Addr
		want    string
	}{
		"the default": {[]netip.Prefix{v4, v6}, nil,
			"192.0.2.1 guest\n2001:db8::1 guest\n192.0.2.2 host\n"},
		"DHCP names the router": {[]netip.Prefix{v4, v6}, []netip.Addr{netip.MustParseAddr("192.0.2.254")},
			"192.0.2.1 guest\n2001:db8::1 guest\n192.0.2.254 host\n"},
		"IPv6 first":         {[]netip.Prefix{v6, v4}, nil, "2001:db8::1 guest\n192.0.2.1 guest\n192.0.2.2 host\n"},
		"IPv6 alone":         {[]netip.Prefix{v6}, nil, "2001:db8::1 guest\n2001:db8::2 host\n"},
		"no room for a host": {[]netip.Prefix{netip.MustParsePrefix("192.0.2.1/32")}, nil, "192.0.2.1 guest\n"},
		"no address":         {nil, nil, ""},
	} {
		require.Equal(t, c.want, hosts(c.own, c.routers), name)
	}
}

func TestTheResolverIsQEMUs(t *testing.T) {
	v4, v6 := netip.MustParsePrefix("192.0.2.1/24"), netip.MustParsePrefix("2001:db8::1/64")
	require.Equal(t, "nameserver 192.0.2.3\noptions timeout:1 attempts:2\n", resolver([]netip.Prefix{v6, v4}))
	require.Empty(t, resolver([]netip.Prefix{v6, netip.MustParsePrefix("192.0.2.1/31")}))
}
