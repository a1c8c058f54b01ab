// Package subnet holds what the harness and the guest must think alike about the addresses of the
// machine's network.
package subnet

import "net/netip"

// Others returns two addresses of the guest's network that are not its own: the host's, which is also
// the gateway's, and the name server's. The network has room for them if an IPv4 prefix has at
// most 29 bits and an IPv6 prefix at most 124.
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
