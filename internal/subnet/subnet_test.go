package subnet

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTheHostAndTheNameServerAreNotTheGuest(t *testing.T) {
	for guest, want := range map[string][2]string{
		"192.0.2.1/24":   {"192.0.2.2", "192.0.2.3"},
		"192.0.2.2/24":   {"192.0.2.1", "192.0.2.3"},
		"192.0.2.3/24":   {"192.0.2.1", "192.0.2.2"},
		"192.0.2.9/29":   {"192.0.2.10", "192.0.2.11"},
		"10.7.0.9/16":    {"10.7.0.1", "10.7.0.2"},
		"2001:db8::1/64": {"2001:db8::2", "2001:db8::3"},
	} {
		host, dns := Others(netip.MustParsePrefix(guest))
		require.Equal(t, want, [2]string{host.String(), dns.String()}, guest)
	}
}
