package network

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"guesthouse.example/internal/wire"
)

// Apply gives the network cards the hardware addresses and the addresses that the harness wants, and the names
// of the machine and of the host theirs. The first card is eth0, the second eth1 and so on. A restored guest may
// have other addresses, those of the machine that was saved, which Apply removes.
func Apply(n wire.Network) error {
	for i, card := range n.Cards {
		name := "eth" + strconv.Itoa(i)
		if err := apply(name, card); err != nil {
			return fmt.Errorf("interface %s: %w", name, err)
		}
	}
	if err := createFile("/etc/nsswitch.conf", "hosts: files dns\n"); err != nil {
		return err
	}
	for file, text := range map[string]string{"/etc/hosts": hostsOf(n), "/etc/resolv.conf": resolverOf(n)} {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			return err
		}
	}
	if n.Name == "" {
		return nil
	}
	return os.NewSyscallError("sethostname", unix.Sethostname([]byte(n.Name)))
}

func apply(name string, card wire.Card) error {
	link, err := waitLink(name)
	if err != nil {
		return err
	}
	isUp := link.Attrs().Flags&net.FlagUp != 0
	if !isUp {
		if err := setOptions(name); err != nil {
			return err
		}
	}
	mac := net.HardwareAddr(card.MAC[:])
	if !bytes.Equal(link.Attrs().HardwareAddr, mac) {
		if err := netlink.LinkSetHardwareAddr(link, mac); err != nil {
			return fmt.Errorf("hardware address %v: %w", mac, err)
		}
	}
	if !isUp {
		if err := bringUp(link); err != nil {
			return err
		}
	}
	return replaceAddresses(link, append(slices.Clone(card.Addresses), linkLocal(card.MAC)))
}

// replaceAddresses gives an interface exactly the addresses wanted.
func replaceAddresses(link netlink.Link, wanted []netip.Prefix) error {
	present, err := netlink.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("addresses: %w", err)
	}
	has := make(map[netip.Prefix]bool)
	for _, a := range present {
		prefix := prefixOf(a.IP, a.Mask)
		if has[prefix] = slices.Contains(wanted, prefix); has[prefix] {
			continue
		}
		if err := netlink.AddrDel(link, &a); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return fmt.Errorf("remove address %v: %w", prefix, err)
		}
	}
	for _, prefix := range wanted {
		if has[prefix] {
			continue
		}
		addr := &netlink.Addr{IPNet: &net.IPNet{IP: prefix.Addr().AsSlice(), Mask: net.CIDRMask(prefix.Bits(), prefix.Addr().BitLen())}}
		if prefix.Addr().Is6() {
			addr.Flags = unix.IFA_F_NODAD // the harness gives each address to one machine
		}
		if err := netlink.AddrReplace(link, addr); err != nil {
			return fmt.Errorf("address %v: %w", prefix, err)
		}
	}
	return nil
}

// linkLocal returns the IPv6 link-local address that follows from a hardware address (RFC 4291, appendix A).
func linkLocal(mac [6]byte) netip.Prefix {
	a := [16]byte{0xfe, 0x80, 8: mac[0] ^ 2, 9: mac[1], 10: mac[2], 11: 0xff, 12: 0xfe, 13: mac[3], 14: mac[4], 15: mac[5]}
	return netip.PrefixFrom(netip.AddrFrom16(a), 64)
}

// hostsOf returns the text of /etc/hosts. The machine has the name guest, as each guest has, and its own. The
// name service knows the other machines.
func hostsOf(n wire.Network) string {
	var b strings.Builder
	b.WriteString("127.0.0.1 localhost\n::1 localhost\n")
	names := guestName
	if n.Name != "" && n.Name != guestName {
		names = n.Name + " " + guestName
	}
	named := false
	for _, card := range n.Cards {
		for _, a := range card.Addresses {
			fmt.Fprintf(&b, "%v %s\n", a.Addr(), names)
		}
	}
	for _, card := range n.Cards {
		if !named && len(card.Hosts) > 0 {
			fmt.Fprintf(&b, "%v %s\n", card.Hosts[0], hostName)
			named = true
		}
	}
	return b.String()
}

// resolverOf returns the text of /etc/resolv.conf. The name server of each network is the host.
func resolverOf(n wire.Network) string {
	var b strings.Builder
	for _, card := range n.Cards {
		if len(card.Hosts) > 0 {
			fmt.Fprintf(&b, "nameserver %v\n", card.Hosts[0])
		}
	}
	if b.Len() > 0 {
		b.WriteString("options timeout:1 attempts:2\n")
	}
	return b.String()
}
