package guest

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

// The names of the machine and of the host that runs it, whose loopback services are at the gateway's
// address.
const (
	guestName = "guest"
	hostName  = "host"
)

// nameHosts names the machine and the host in /etc/hosts, to which it adds if the initramfs or
// init has one.
func nameHosts(own []netip.Prefix, routers []netip.Addr) error {
	if err := createFile("/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"); err != nil {
		return err
	}
	if err := appendFile("/etc/hosts", hosts(own, routers)); err != nil {
		return err
	}
	// Without it Go and the C libraries ask for a name server first.
	if err := createFile("/etc/nsswitch.conf", "hosts: files dns\n"); err != nil {
		return err
	}
	if name, err := os.Hostname(); err == nil && name == "(none)" {
		if err := unix.Sethostname([]byte(guestName)); err != nil {
			return os.NewSyscallError("sethostname", err)
		}
	}
	return nil
}

// hosts is what /etc/hosts says of a guest with these addresses, whose routers are known or follow from them. The
// host has the name with its IPv4 address alone, where it has one: what listens on a
// loopback listens mostly there, and a program would send its datagrams to the IPv6 address.
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

// hostOf is the host's address in the network of an own one; none if that has no room for it.
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

// createFile writes a file unless there is one.
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
