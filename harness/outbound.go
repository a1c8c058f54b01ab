package harness

import (
	"errors"
	"fmt"
)

// Outbound is what a guest can reach by itself. Whoever contacts one of the forwarded ports gets
// its answers in any case.
type Outbound string

const (
	// OutboundNone is nothing: the guest's connections are refused, its datagrams are
	// dropped. The network itself answers DHCP, ARP, IPv6 neighbor discovery, and a ping of the
	// gateway.
	OutboundNone Outbound = "none"

	// OutboundHost is what listens on the host's loopback, 127.0.0.1 and ::1. The guest reaches it
	// at the gateway's address, 192.0.2.2 and 2001:db8::2 by default, which the guest
	// knows by the name "host".
	OutboundHost Outbound = "host"

	// OutboundInternet is all that QEMU's user network leads to: the host's loopback, the host's name
	// server at 192.0.2.3 and 2001:db8::3, and whatever the host itself reaches. A guest has
	// a route and a name server with guesthouse.ip=dhcp.
	OutboundInternet Outbound = "internet"
)

// check completes a choice, or refuses it.
func (o Outbound) check() (Outbound, error) {
	switch o {
	case "":
		return OutboundNone, nil
	case OutboundNone, OutboundHost, OutboundInternet:
		return o, nil
	}
	return "", fmt.Errorf("outbound %q: it is %q, %q or %q", string(o), OutboundNone, OutboundHost, OutboundInternet)
}

// filtered says whether the harness stands between the guest and its network.
func (o Outbound) filtered() bool { return o != OutboundInternet }

var errHostAlone = errors.New(`outbound "host" needs the harness while the machine runs: QEMU alone has "none" and "internet"`)
