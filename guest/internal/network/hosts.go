package network

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"guesthouse.example/internal/subnet"
)

// The names of the guest and of the host. The gateway's address leads to services on the host's
// loopback interface.
const (
	guestName = "guest"
	hostName  = "host"
)

// nameHosts adds the names of the guest and of the host to /etc/hosts, and makes this file and others
// that resolve names if they are missing.
func nameHosts(own []netip.Prefix, routers []netip.Addr) error {
	if err := createFile("/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"); err != nil {
		return err
	}
	if err := appendFile("/etc/hosts", hosts(own, routers)); err != nil {
		return err
	}
	// Without this file Go and the C libraries ask a name server first.
	if err := createFile("/etc/nsswitch.conf", "hosts: files dns\n"); err != nil {
		return err
	}
	if err := createFile("/etc/resolv.conf", resolver(own)); err != nil {
		return err
	}
	if name, err := os.Hostname(); err == nil && name == "(none)" {
		if err := unix.Sethostname([]byte(guestName)); err != nil {
			return os.NewSyscallError("sethostname", err)
		}
	}
	return nil
}

// hosts returns the lines of /etc/hosts for a guest with these addresses and routers. If the host has
// an IPv4 address, its name stands only for that address: most services on a loopback interface listen
// only on IPv4, but with both addresses a program would send its datagrams to the IPv6 address.
func hosts(own []netip.Prefix, routers []netip.Addr) string {
	var b strings.Builder
	var host netip.Addr
	for _, prefix := range own {
		fmt.Fprintf(&b, "%v %s\n", prefix.Addr(), guestName)
		if at := hostOf(prefix, routers); at.IsValid() && (!host.IsValid() || (at.Is4() && !host.Is4())) {
			host = at
		}
	}
	if host.IsValid() {
		fmt.Fprintf(&b, "%v %s\n", host, hostName)
	}
	return b.String()
}

// resolver returns the text of /etc/resolv.conf. The name server is QEMU's, which answers only if
// Spec.Outbound lets the guest reach it; with DHCP, the DHCP client has written the file.
func resolver(own []netip.Prefix) string {
	for _, prefix := range own {
		if prefix.Addr().Is4() && prefix.Bits() <= prefix.Addr().BitLen()-3 {
			_, dns := subnet.Others(prefix)
			return fmt.Sprintf("nameserver %v\noptions timeout:1 attempts:2\n", dns)
		}
	}
	return ""
}

// hostOf returns the host's address in the network of one of the guest's addresses. It is the
// network's router if that is known. It is invalid if the network has no room for a host.
func hostOf(own netip.Prefix, routers []netip.Addr) (host netip.Addr) {
	for _, router := range routers {
		if own.Contains(router) {
			return router
		}
	}
	if own.Bits() <= own.Addr().BitLen()-3 {
		host, _ = subnet.Others(own)
	}
	return host
}

func appendFile(name, text string) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// createFile writes a file unless it exists.
func createFile(name, text string) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}
