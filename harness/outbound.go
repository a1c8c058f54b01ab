package harness

import (
	"errors"
	"fmt"

	"guesthouse.example/harness/internal/outbound"
	"guesthouse.example/internal/subnet"
)

// Outbound is what a guest may connect to. The guest may always answer on its forwarded ports.
type Outbound string

const (
	// OutboundNone refuses the guest's connections and drops its datagrams. The network itself
	// answers DHCP, ARP, IPv6 neighbor discovery and a ping of the gateway.
	OutboundNone Outbound = "none"

	// OutboundHost lets the guest connect to services on the host's loopback, 127.0.0.1 and ::1, at
	// the gateway's address: 192.0.2.2 or 2001:db8::2 by default, under the name "host" in the
	// guest.
	OutboundHost Outbound = "host"

	// OutboundInternet lets the guest connect to everything that QEMU's user network reaches: the
	// host's loopback, the host's name server at 192.0.2.3 and 2001:db8::3, and whatever the host
	// can reach. The guest has a route and a name server with guesthouse.ip=dhcp.
	OutboundInternet Outbound = "internet"
)

// check replaces the empty choice by the default, and refuses an unknown one.
func (o Outbound) check() (Outbound, error) {
	switch o {
	case "":
		return OutboundNone, nil
	case OutboundNone, OutboundHost, OutboundInternet:
		return o, nil
	}
	return "", fmt.Errorf("outbound %q: write %q, %q or %q", string(o), OutboundNone, OutboundHost, OutboundInternet)
}

// filtered reports whether the harness filters the guest's network.
func (o Outbound) filtered() bool { return o != OutboundInternet }

// rules returns the rules of the filter for the plan's guest.
func (p *plan) rules() outbound.Rules {
	host, _ := subnet.Others(p.qemu.Network.Guest)
	host6, _ := subnet.Others(p.qemu.Network.Guest6)
	return outbound.Rules{Gateway: host, Gateway6: host6, Host: p.spec.Outbound == OutboundHost}
}

var errHostAlone = errors.New(`outbound "host" needs the harness while the machine runs: QEMU alone has "none" and "internet"`)
