// Package network configures the machine's network card.
package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"guesthouse.example/internal/subnet"
)

const (
	interfaceWithin = 5 * time.Second // bounds the wait for the interface, and the wait for its carrier
	interfaceLooks  = 50              // looks at the interface within interfaceWithin
	leaseWithin     = 20 * time.Second
)

// card is the name of the machine's first network card.
const card = "eth0"

// FromHarness reports whether the kernel command line has guesthouse.ip=harness: the harness then says, by
// a request to the agent, how to configure the network cards. See Apply.
func FromHarness() bool { return flag("guesthouse.ip", subnet.DefaultIPv4) == subnet.FromHarness }

// Configure brings the network card up with the addresses of the kernel command line:
// guesthouse.ip=ADDRESS/BITS, dhcp or none, and guesthouse.ip6=ADDRESS/BITS or none. With none for
// both it leaves the network to the guest program. It also writes /etc/hosts and names the machine.
func Configure() error {
	ip, ip6 := flag("guesthouse.ip", subnet.DefaultIPv4), flag("guesthouse.ip6", subnet.DefaultIPv6)
	if ip == none && ip6 == none {
		return nameHosts(nil, nil)
	}
	return configure(card, ip, ip6)
}

// hasCarrier reports whether the driver has seen the card's carrier. The kernel tells the carrier itself
// only of an interface that is up.
func hasCarrier(name string) bool {
	up, down := counter(name, "carrier_up_count"), counter(name, "carrier_down_count")
	return up > 0 && up >= down // a driver begins without carrier
}

// counter returns a counter of an interface, or 0 if the kernel does not have it.
func counter(name, file string) int {
	text, err := os.ReadFile("/sys/class/net/" + name + "/" + file)
	if err != nil {
		return 0
	}
	n, _ := strconv.Atoi(strings.TrimSpace(string(text)))
	return n
}

// awaitCarrier waits until the kernel lets packets through an interface that has been brought up. If
// the driver had seen the carrier before, the kernel lets them through at once, and only sets the flag
// IFF_RUNNING up to a second later, because it handles one change of a carrier a second. Otherwise it
// drops all packets until the flag is set. It never sets the flag if QEMU has cut the link, which is no
// error.
func awaitCarrier(name string, hadCarrier bool) error {
	if hadCarrier {
		return nil
	}
	running := func(l netlink.Link) bool { return l.Attrs().RawFlags&unix.IFF_RUNNING != 0 }
	if _, err := watchLink(name, running); err != nil && !errors.Is(err, errLinkLate) {
		return fmt.Errorf("interface %s: carrier: %w", name, err)
	}
	return nil
}

// none is the value of guesthouse.ip and guesthouse.ip6 for no address.
const none = "none"

// setOptions sets the kernel's options of an interface, and those of TCP.
func setOptions(name string) error {
	for _, option := range [][2]string{
		// The addresses are fixed, as in Zephyr's samples: routers add none.
		{"accept_ra", "0"},
		// No other machine is in the network. Duplicate address detection would take a second,
		// and reports of multicast groups several.
		{"accept_dad", "0"},
		{"mldv1_unsolicited_report_interval", "1"},
		{"mldv2_unsolicited_report_interval", "1"},
	} {
		if err := os.WriteFile("/proc/sys/net/ipv6/conf/"+name+"/"+option[0], []byte(option[1]), 0); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("interface %s: %s: %w", name, option[0], err)
		}
	}
	// A guest that was stopped for a while may send a SYN-ACK twice. QEMU's libslirp
	// 4.7 then empties its buffer of the connection and silently loses bytes. With SYN
	// cookies for all connections, the kernel sends no second SYN-ACK.
	if err := os.WriteFile("/proc/sys/net/ipv4/tcp_syncookies", []byte("2"), 0); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("SYN cookies: %w", err)
	}
	return nil
}

// bringUp brings an interface up and waits until the kernel lets packets through.
func bringUp(link netlink.Link) error {
	name := link.Attrs().Name
	carrier := hasCarrier(name)
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("interface %s: up: %w", name, err)
	}
	return awaitCarrier(name, carrier)
}

func configure(name, ip, ip6 string) error {
	link, err := waitLink(name)
	if err == nil {
		err = setOptions(name)
	}
	if err == nil {
		err = bringUp(link)
	}
	if err != nil {
		return err
	}
	var own []netip.Prefix
	var routers []netip.Addr
	if ip != none {
		var addr netip.Prefix
		if ip == "dhcp" {
			addr, routers, err = lease(link)
		} else {
			addr, err = addAddress(link, "guesthouse.ip", ip)
		}
		if err != nil {
			return err
		}
		own = append(own, addr)
	}
	if ip6 != none {
		addr, err := addAddress(link, "guesthouse.ip6", ip6)
		if err != nil {
			return err
		}
		own = append(own, addr)
	}
	return nameHosts(own, routers)
}

// flag returns the value of the last word name=value on the kernel command line. Without such a
// word it returns the argument unset.
func flag(name, unset string) string {
	line, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return unset
	}
	value := unset
	for _, word := range strings.Fields(string(line)) {
		if v, ok := strings.CutPrefix(word, name+"="); ok {
			value = v
		}
	}
	return value
}

func addAddress(link netlink.Link, from, text string) (prefix netip.Prefix, err error) {
	addr, err := netlink.ParseAddr(text)
	if err != nil {
		return prefix, fmt.Errorf("%s=%s: %w", from, text, err)
	}
	if err := netlink.AddrReplace(link, addr); err != nil {
		return prefix, fmt.Errorf("interface %s: address %s: %w", link.Attrs().Name, text, err)
	}
	return prefixOf(addr.IP, addr.Mask), nil
}

func prefixOf(ip net.IP, mask net.IPMask) netip.Prefix {
	addr, _ := netip.AddrFromSlice(ip)
	bits, _ := mask.Size()
	return netip.PrefixFrom(addr.Unmap(), bits)
}

// waitLink waits for an interface to appear and returns it. Some drivers find their
// device only after they are loaded.
func waitLink(name string) (netlink.Link, error) {
	link, err := watchLink(name, func(netlink.Link) bool { return true })
	switch {
	case errors.Is(err, errLinkLate):
		return nil, fmt.Errorf("interface %s is missing: no network card appeared within %v of loading its driver; the interfaces are %s",
			name, interfaceWithin, interfaceNames())
	case err != nil:
		return nil, fmt.Errorf("interface %s: %w", name, err)
	}
	return link, nil
}

var errLinkLate = fmt.Errorf("not within %v", interfaceWithin)

// watchLink waits until the interface exists and wanted returns true. It returns errLinkLate after
// interfaceWithin.
func watchLink(name string, wanted func(netlink.Link) bool) (netlink.Link, error) {
	updates := make(chan netlink.LinkUpdate, 64) // the sender must not block after the return
	done := make(chan struct{})
	defer close(done)
	if err := netlink.LinkSubscribe(updates, done); err != nil {
		return nil, err
	}
	// The clock jumps if QEMU was stopped. A ticker counts a jump of any length as one tick.
	look := time.NewTicker(interfaceWithin / interfaceLooks)
	defer look.Stop()
	for looks := 0; ; {
		link, err := netlink.LinkByName(name)
		switch {
		case err == nil && wanted(link):
			return link, nil
		case err != nil && !errors.As(err, new(netlink.LinkNotFoundError)):
			return nil, err
		}
		select {
		case _, ok := <-updates:
			if !ok {
				updates = nil // netlink gave up; the deadline remains
			}
		case <-look.C:
			if looks++; looks == interfaceLooks {
				return nil, errLinkLate
			}
		}
	}
}

func interfaceNames() (names []string) {
	all, _ := net.Interfaces()
	for _, i := range all {
		names = append(names, i.Name)
	}
	return names
}

// lease runs u-root's DHCP client on the interface. It returns the interface's new IPv4 address and
// the routers of its network.
func lease(link netlink.Link) (own netip.Prefix, routers []netip.Addr, err error) {
	name := link.Attrs().Name
	defer func() {
		if err != nil {
			err = fmt.Errorf("interface %s: dhcp: %w", name, err)
		}
	}()
	ctx, cancel := context.WithTimeout(context.Background(), leaseWithin)
	defer cancel()
	client := exec.CommandContext(ctx, "/bbin/dhclient", "-ipv6=false", "-timeout=2", "-retry=8", "^"+name+"$")
	said, err := client.CombinedOutput() // the status is 0 even if no server has answered
	if err != nil {
		return own, nil, fmt.Errorf("%s: %w\n%s", client.Path, err, said)
	}
	addrs, err := netlink.AddrList(link, netlink.FAMILY_V4)
	if err != nil {
		return own, nil, err
	}
	if len(addrs) == 0 {
		return own, nil, fmt.Errorf("no address:\n%s", said)
	}
	routes, err := netlink.RouteList(link, netlink.FAMILY_V4)
	if err != nil {
		return own, nil, err
	}
	for _, route := range routes {
		if router, ok := netip.AddrFromSlice(route.Gw); ok {
			routers = append(routers, router.Unmap())
		}
	}
	return prefixOf(addrs[0].IP, addrs[0].Mask), routers, nil
}
