package harness

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"guesthouse.example/internal/target"
)

// A Spec says what machine to boot. It is plain data: the command line, the
// tests and every record's spec.json hold the same thing, so that a run can be
// repeated. The zero value of every field but Target, Kernel and Initramfs works.
type Spec struct {
	// Target names the emulated machine: "x86_64", "arm64".
	Target string `json:"target"`

	// Kernel and Initramfs are files, as package images builds them.
	// A kernel that needs no initramfs, an RTOS for example, is booted without.
	Kernel    string `json:"kernel"`
	Initramfs string `json:"initramfs,omitempty"`

	// Cmdline is added to the target's kernel command line. The guest's
	// addresses are set here: guesthouse.ip=ADDRESS/BITS (or dhcp) and
	// guesthouse.ip6=ADDRESS/BITS (or none); QEMU's network follows them. The
	// defaults are those of Zephyr's samples, 192.0.2.1/24 and 2001:db8::1/64.
	Cmdline []string `json:"cmdline,omitempty"`

	// Memory is the machine's size in MiB; 0 is 256.
	Memory int `json:"memory_mib,omitempty"`

	// Ports are the guest's ports that Dial reaches: "udp/4242", "tcp/80".
	Ports []string `json:"ports,omitempty"`

	// Ready is a regular expression; Boot ends when the console shows it.
	// Empty is DefaultReady.
	Ready string `json:"ready,omitempty"`

	// FirstByteWithin and ReadyWithin bound the time from QEMU's start to
	// the first byte on the console and to Ready, in nanoseconds in
	// JSON; 0 is 30 s and 90 s.
	FirstByteWithin time.Duration `json:"first_byte_within,omitempty"`
	ReadyWithin     time.Duration `json:"ready_within,omitempty"`

	// Accel is how the processor is emulated; empty is TCG, which works everywhere.
	Accel Accel `json:"accel,omitempty"`

	// Dir is the record directory (made if missing); empty is a temporary
	// one that is removed after a run without failure.
	Dir string `json:"-"`

	// QEMU is the emulator's binary; empty is the target's, found in PATH.
	QEMU string `json:"qemu,omitempty"`

	// QEMUArgs are added to QEMU's command line.
	QEMUArgs []string `json:"qemu_args,omitempty"`
}

// DefaultReady matches what guest.Main prints when all services are up.
const DefaultReady = `guesthouse: ready$`

// Accel is how QEMU runs the guest's processor.
type Accel string

const (
	TCG Accel = "tcg" // translation, on any host
	KVM Accel = "kvm" // the host's own processor, where /dev/kvm works
)

const (
	defaultMemory    = 256 // MiB
	defaultFirstByte = 30 * time.Second
	defaultReadyIn   = 90 * time.Second
	defaultGuestIP   = "192.0.2.1/24"
	defaultGuestIP6  = "2001:db8::1/64"
	smallestMemoryMB = 64
)

// ReadSpec reads a Spec from a JSON file, as it stands in every record.
func ReadSpec(file string) (Spec, error) {
	var s Spec
	f, err := os.Open(file)
	if err != nil {
		return s, fmt.Errorf("spec: %w", err)
	}
	defer f.Close()
	dec := json.NewDecoder(f)
	dec.DisallowUnknownFields()
	if err := dec.Decode(&s); err != nil {
		return s, fmt.Errorf("spec %s: %w", file, err)
	}
	return s, nil
}

// plan is a Spec that has been checked and completed.
type plan struct {
	Spec
	target  target.Target
	ready   *regexp.Regexp
	ports   []Port
	network network
}

// check completes a Spec and refuses what cannot boot, before anything is started.
func (s Spec) check() (*plan, error) {
	t, err := target.Lookup(s.Target)
	if err != nil {
		return nil, err
	}
	p := &plan{Spec: s, target: t}
	if p.Memory == 0 {
		p.Memory = defaultMemory
	}
	if p.Memory < smallestMemoryMB {
		return nil, fmt.Errorf("memory of %d MiB: a Linux kernel needs at least %d", p.Memory, smallestMemoryMB)
	}
	if p.Ready == "" {
		p.Ready = DefaultReady
	}
	if p.ready, err = regexp.Compile("(?m)" + p.Ready); err != nil {
		return nil, fmt.Errorf("ready pattern: %w", err)
	}
	if p.FirstByteWithin == 0 {
		p.FirstByteWithin = defaultFirstByte
	}
	if p.ReadyWithin == 0 {
		p.ReadyWithin = defaultReadyIn
	}
	switch p.Accel {
	case "":
		p.Accel = TCG
	case TCG, KVM:
	default:
		return nil, fmt.Errorf("unknown acceleration %q: it is %q or %q", p.Accel, TCG, KVM)
	}
	if p.QEMU == "" {
		p.QEMU = t.QEMU
	}
	for _, text := range s.Ports {
		port, err := parsePort(text)
		if err != nil {
			return nil, err
		}
		if slices.Contains(p.ports, port) {
			return nil, fmt.Errorf("port %s is listed twice", text)
		}
		p.ports = append(p.ports, port)
	}
	if p.network, err = parseNetwork(s.Cmdline); err != nil {
		return nil, err
	}
	if err := checkKernel(s.Kernel); err != nil {
		return nil, err
	}
	if s.Initramfs != "" {
		if err := checkFile("initramfs", s.Initramfs); err != nil {
			return nil, err
		}
	}
	// QEMU and whoever repeats the run may have another working directory.
	for _, file := range []*string{&p.Kernel, &p.Initramfs} {
		if *file != "" {
			if *file, err = filepath.Abs(*file); err != nil {
				return nil, err
			}
		}
	}
	return p, nil
}

// A Port is a guest's port and the host's port on 127.0.0.1 that leads to it.
type Port struct {
	Network string // "udp" or "tcp"
	Guest   int
	Host    int // 0 until the machine runs
}

func parsePort(text string) (Port, error) {
	network, number, ok := strings.Cut(text, "/")
	n, err := strconv.Atoi(number)
	if !ok || err != nil || n < 1 || n > 65535 || (network != "udp" && network != "tcp") {
		return Port{}, fmt.Errorf("port %q: write it as udp/4242 or tcp/4242, from 1 to 65535", text)
	}
	return Port{Network: network, Guest: n}, nil
}

// network is the guest's network as QEMU's user networking emulates it.
type network struct {
	guest, guest6 netip.Prefix
}

// parseNetwork finds the guest's addresses on its kernel command line, where
// the last word counts. A guest that uses DHCP is given the default address.
func parseNetwork(cmdline []string) (network, error) {
	ip, ip6 := defaultGuestIP, defaultGuestIP6
	for _, words := range cmdline {
		for _, word := range strings.Fields(words) {
			if v, ok := strings.CutPrefix(word, "guesthouse.ip="); ok && v != "dhcp" {
				ip = v
			}
			if v, ok := strings.CutPrefix(word, "guesthouse.ip6="); ok && v != "none" {
				ip6 = v
			}
		}
	}
	var n network
	var err error
	if n.guest, err = netip.ParsePrefix(ip); err != nil || !n.guest.Addr().Is4() || n.guest.Bits() > 29 {
		return n, fmt.Errorf("guesthouse.ip=%s: write dhcp, or an IPv4 address and at most 29 bits as in %s", ip, defaultGuestIP)
	}
	if n.guest6, err = netip.ParsePrefix(ip6); err != nil || !n.guest6.Addr().Is6() || n.guest6.Bits() > 124 {
		return n, fmt.Errorf("guesthouse.ip6=%s: write none, or an IPv6 address and at most 124 bits as in %s", ip6, defaultGuestIP6)
	}
	return n, nil
}

// others returns two addresses of a network that are not the guest's: the host's and the name server's.
func others(guest netip.Prefix) (host, dns netip.Addr) {
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

// args is QEMU's command line. The machine starts stopped (-S), so that not a
// byte of its console is lost before somebody reads.
func (p *plan) args() []string {
	host, dns := others(p.network.guest)
	host6, dns6 := others(p.network.guest6)
	netdev := fmt.Sprintf("user,id=net0,ipv4=on,net=%s,host=%s,dns=%s,dhcpstart=%s,ipv6=on,ipv6-prefix=%s,ipv6-prefixlen=%d,ipv6-host=%s,ipv6-dns=%s",
		p.network.guest.Masked(), host, dns, p.network.guest.Addr(),
		p.network.guest6.Masked().Addr(), p.network.guest6.Bits(), host6, dns6)
	for _, port := range p.ports {
		// Port 0: the kernel chooses a free one, and nobody can take it in between.
		netdev += fmt.Sprintf(",hostfwd=%s:127.0.0.1:0-%s:%d", port.Network, p.network.guest.Addr(), port.Guest)
	}
	args := []string{
		"-S", "-no-user-config", "-nodefaults", "-display", "none",
		"-no-reboot", // with panic=-1, a kernel panic ends QEMU
		"-machine", p.target.Machine + ",accel=" + string(p.Accel),
		"-cpu", p.target.CPU,
		"-m", strconv.Itoa(p.Memory),
		"-kernel", p.Kernel,
		"-append", strings.Join(append(p.target.Cmdline[:len(p.target.Cmdline):len(p.target.Cmdline)], p.Cmdline...), " "),
		"-netdev", netdev,
		"-device", p.target.NetDevice + ",netdev=net0",
	}
	if p.Initramfs != "" {
		args = append(args, "-initrd", p.Initramfs)
	}
	return append(append(args, connectionArgs()...), p.QEMUArgs...)
}

// Command returns the QEMU command line that Boot would run, without running it. The
// descriptors 3 and 4 in it are those of the console and the monitor.
func (s Spec) Command() ([]string, error) {
	p, err := s.check()
	if err != nil {
		return nil, err
	}
	return append([]string{p.QEMU}, p.args()...), nil
}

func checkFile(what, file string) error {
	info, err := os.Stat(file)
	switch {
	case err != nil:
		return fmt.Errorf("%s: %w", what, err)
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s %s: not a regular file", what, file)
	case info.Size() == 0:
		return fmt.Errorf("%s %s: the file is empty", what, file)
	}
	return nil
}

// errCutShort is wrapped by the error for a kernel file that ends too early.
var errCutShort = errors.New("the file is cut short")
