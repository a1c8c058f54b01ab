package netstack

import (
	"fmt"
	"net/netip"
	"slices"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
)

// Connections looks for TCP connections with machines that have one of the addresses. It returns one that is open, and
// one that is about to open or to close, in words, or "" for each if there is none. It ignores connections in TIME_WAIT:
// both ends have closed them.
func (n *Stack) Connections(addresses []netip.Addr) (open, transient string) {
	for _, e := range n.stack.RegisteredEndpoints() {
		ep, ok := e.(*tcp.Endpoint)
		if !ok {
			continue
		}
		state := ep.EndpointState()
		switch state {
		case tcp.StateInitial, tcp.StateBound, tcp.StateListen, tcp.StateTimeWait, tcp.StateClose, tcp.StateError:
			continue
		}
		// GetRemoteAddress fails before the connection is open.
		id := ep.Info().(*stack.TransportEndpointInfo).ID
		remote := addrPort(id.RemoteAddress, id.RemotePort)
		if !slices.Contains(addresses, remote.Addr()) {
			continue
		}
		words := fmt.Sprintf("TCP[%v] %v %v", state, addrPort(id.LocalAddress, id.LocalPort), remote)
		if state == tcp.StateEstablished {
			open = words
		} else {
			transient = words
		}
	}
	return open, transient
}

func addrPort(a tcpip.Address, port uint16) netip.AddrPort {
	at, _ := netip.AddrFromSlice(a.AsSlice())
	return netip.AddrPortFrom(at.Unmap(), port)
}
