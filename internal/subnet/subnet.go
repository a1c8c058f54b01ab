// Package subnet defines the addresses of the machine's network, on which the harness and the guest
// must agree.
package subnet

import "net/netip"

// The guest's default addresses are those of Zephyr's network samples
// (CONFIG_NET_CONFIG_MY_IPV4_ADDR and CONFIG_NET_CONFIG_MY_IPV6_ADDR).
const (
	DefaultIPv4 = "192.0.2.1/24"
	DefaultIPv6 = "2001:db8::1/64"
)

// FromHarness is the value of guesthouse.ip for a guest that the harness tells its addresses.
const FromHarness = "harness"

// Others returns the two lowest addresses of the guest's network other than the guest's own: the
// host's, which is also the gateway's, and the name server's. An IPv4 prefix of at most 29 bits and
// an IPv6 prefix of at most 124 bits have room for both.
func Others(guest netip.Prefix) (host, dns netip.Addr) {
	addr := guest.Masked().Addr().Next()
	for !dns.IsValid() {
		if addr != guest.Addr() {
			if !host.IsValid() {
				host = addr
			} else {
				dns = addr
			}
		}
		addr = addr.Next()
	}
	return host, dns
}
