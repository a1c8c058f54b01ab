package qemu

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"guesthouse.example/internal/subnet"
)

// A Network holds the guest's addresses, with the sizes of their networks.
type Network struct {
	Guest, Guest6 netip.Prefix
}

// ParseNetwork returns the guest's addresses on its kernel command line. If a parameter occurs more than
// once, the last one counts. QEMU expects a guest without an address on the command line at the default
// address.
func ParseNetwork(cmdline []string) (n Network, err error) {
	ip, ip6 := subnet.DefaultIPv4, subnet.DefaultIPv6
	for _, words := range cmdline {
		for _, word := range strings.Fields(words) {
			if v, ok := strings.CutPrefix(word, "guesthouse.ip="); ok && v != "dhcp" && v != "none" {
				ip = v
			}
			if v, ok := strings.CutPrefix(word, "guesthouse.ip6="); ok && v != "none" {
				ip6 = v
			}
		}
	}
	if n.Guest, err = netip.ParsePrefix(ip); err != nil || !n.Guest.Addr().Is4() || n.Guest.Bits() > 29 {
		return n, fmt.Errorf("guesthouse.ip=%s: write dhcp, none, or an IPv4 address and at most 29 bits as in %s", ip, subnet.DefaultIPv4)
	}
	if n.Guest6, err = netip.ParsePrefix(ip6); err != nil || !n.Guest6.Addr().Is6() || n.Guest6.Bits() > 124 {
		return n, fmt.Errorf("guesthouse.ip6=%s: write none, or an IPv6 address and at most 124 bits as in %s", ip6, subnet.DefaultIPv6)
	}
	return n, nil
}

// A Forward is a port of the guest and the host's port on 127.0.0.1 that leads to it.
type Forward struct {
	Network string // "udp" or "tcp"
	Guest   int
	Host    int // 0 until QEMU listens
}

// ParseForward parses a guest's port such as "udp/4242".
func ParseForward(text string) (Forward, error) {
	network, number, ok := strings.Cut(text, "/")
	n, err := strconv.Atoi(number)
	if !ok || err != nil || n < 1 || n > 65535 || (network != "udp" && network != "tcp") {
		return Forward{}, fmt.Errorf("port %q: write it as udp/4242 or tcp/4242, from 1 to 65535", text)
	}
	return Forward{Network: network, Guest: n}, nil
}

// AddCommand returns the command of QEMU's human monitor that forwards the port.
func (n Network) AddCommand(f Forward) string {
	return fmt.Sprintf("hostfwd_add net0 %s:127.0.0.1:0-%s:%d", f.Network, n.Guest.Addr(), f.Guest)
}

// TableCommand is the command of QEMU's human monitor that lists the forwards and connections of its user network.
const TableCommand = "info usernet"

// ReadForwards returns the forwards with the host's ports, which it finds in the answer to TableCommand.
func ReadForwards(table string, forwards []Forward) (found []Forward, err error) {
	host := make(map[Forward]int)
	for line := range strings.Lines(table) {
		// TCP[HOST_FORWARD]  3  127.0.0.1 43467  192.0.2.1 4242  0 0
		f := strings.Fields(line)
		if len(f) < 6 || !strings.HasSuffix(f[0], "[HOST_FORWARD]") {
			continue
		}
		from, err1 := strconv.Atoi(f[3])
		to, err2 := strconv.Atoi(f[5])
		if err1 == nil && err2 == nil {
			network, _, _ := strings.Cut(strings.ToLower(f[0]), "[")
			host[Forward{Network: network, Guest: to}] = from
		}
	}
	for _, f := range forwards {
		port, ok := host[Forward{Network: f.Network, Guest: f.Guest}]
		if !ok {
			return nil, fmt.Errorf("port %s/%d: QEMU does not list its forward: %q", f.Network, f.Guest, table)
		}
		found = append(found, Forward{f.Network, f.Guest, port})
	}
	return found, nil
}

// transientStates are QEMU's names for the states of a TCP connection that is about to open or to close.
var transientStates = []string{"SYN_SENT", "SYN_RCVD", "FIN_WAIT_1", "FIN_WAIT_2", "CLOSE_WAIT", "CLOSING", "LAST_ACK", "CLOSED"}

// Connections looks for TCP connections in the answer to TableCommand. It returns the line of one that is
// open, and the line of one that is about to open or to close, or "" for each if there is none. It ignores
// connections in TIME_WAIT: both ends have closed them, no template contains them, and QEMU keeps them for
// 10 s only because a packet may be late.
func Connections(table string) (open, transient string) {
	for line := range strings.Lines(table) {
		// TCP[ESTABLISHED]  12  192.0.2.1  4242  127.0.0.1 43467  0 0
		line = strings.Join(strings.Fields(line), " ")
		state, isTCP := strings.CutPrefix(line, "TCP[")
		state, _, _ = strings.Cut(state, "]")
		switch {
		case !isTCP, state == "HOST_FORWARD", state == "TIME_WAIT":
		case slices.Contains(transientStates, state):
			transient = line
		default:
			open = line
		}
	}
	return open, transient
}
