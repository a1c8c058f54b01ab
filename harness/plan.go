package harness

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"guesthouse.example/harness/internal/tsc"
	"guesthouse.example/internal/capacity"
	"guesthouse.example/internal/subnet"
	"guesthouse.example/internal/target"
)

// plan is a Spec that has been checked and completed.
type plan struct {
	Spec
	target  target.Target
	ready   *pattern
	crashes []*regexp.Regexp // Spec.Crashes, each at a line's start
	ports   []Port
	network network
	alone   bool // QEMU runs without the harness's filter

	// Accel is TCG where none is asked for, until choose has settled it.
	asked                   Accel
	accelWhy, accelEvidence string
}

// plan completes a Spec and refuses what cannot boot, but for its files.
func (s Spec) plan() (*plan, error) {
	t, err := target.Lookup(s.Target)
	if err != nil {
		return nil, err
	}
	p := &plan{Spec: s, target: t, asked: s.Accel}
	if p.Memory == 0 {
		p.Memory = defaultMemory
	}
	if p.Memory < 1 {
		return nil, fmt.Errorf("memory of %d MiB: the least is 1, and Debian's kernels take %d", p.Memory, debianMemory)
	}
	if _, total, ok := capacity.Memory(); ok && int64(p.Memory) > total>>20 {
		return nil, fmt.Errorf("memory of %d MiB: this host has %d", p.Memory, total>>20)
	}
	if p.Ready == "" {
		p.Ready = DefaultReady
	}
	if p.ready, err = compile(p.Ready); err != nil {
		return nil, fmt.Errorf("ready pattern: %w", err)
	}
	for _, expr := range p.Crashes {
		re, err := crashPattern(expr)
		if err != nil {
			return nil, fmt.Errorf("crash pattern %q: %w", expr, err)
		}
		p.crashes = append(p.crashes, re)
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
	if p.Outbound, err = p.Outbound.check(); err != nil {
		return nil, err
	}
	return p, nil
}

// crashPattern compiles one of Spec.Crashes.
func crashPattern(expr string) (*regexp.Regexp, error) {
	if _, err := regexp.Compile(expr); err != nil {
		return nil, err // with the expression as the user wrote it
	}
	re, err := regexp.Compile("^(?:" + expr + ")")
	if err == nil && re.MatchString("") {
		err = errors.New("it matches every line: write what the guest prints only when it crashes")
	}
	return re, err
}

// check completes a Spec and refuses what cannot boot, before anything is
// started.
func (s Spec) check() (*plan, error) {
	p, err := s.plan()
	if err != nil {
		return nil, err
	}
	if err := checkKernel(s.Kernel, p.target); err != nil {
		return nil, err
	}
	if s.Initramfs != "" {
		if err := checkFile("initramfs", s.Initramfs); err != nil {
			return nil, err
		}
	}
	// Whoever repeats the run may have another working directory.
	files := []*string{&p.Kernel, &p.Initramfs}
	if strings.Contains(p.QEMU, "/") {
		files = append(files, &p.QEMU)
	}
	for _, file := range files {
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

// args is the command line of QEMU under our control. The machine starts stopped (-S), so that not a
// byte of its console is lost before somebody reads.
func (p *plan) args(binary string, ram ramKind) []string {
	var filter []string
	if p.Outbound.filtered() {
		filter = filterArgs()
	}
	return slices.Concat([]string{"-S", "-global", migrationEvents}, sandboxArgs(binary, p.QEMUArgs), p.machineArgs(ram), connectionArgs(), filter, p.QEMUArgs)
}

// ramKind says what a machine's memory is.
type ramKind int

const (
	ownRAM      ramKind = iota // QEMU's own
	savedRAM                   // a file that we hold too, so that Save can read it
	restoredRAM                // a template's, copied where it is written to; the state is to come
	readOnlyRAM                // likewise, and QEMU opens the file for reading alone
)

// restored says whether the machine is restored from a template.
func (k ramKind) restored() bool { return k == restoredRAM || k == readOnlyRAM }

// backend returns the properties of QEMU's memory-backend-file.
func (k ramKind) backend() string {
	return map[ramKind]string{savedRAM: "share=on", restoredRAM: "share=off", readOnlyRAM: "share=off,readonly=on,rom=off"}[k]
}

// model returns QEMU's -machine and -cpu.
func (p *plan) model() (machine, cpu string) {
	if p.Accel == KVM {
		return cmp.Or(p.target.KVMMachine, p.target.Machine), cmp.Or(p.target.KVMCPU, p.target.CPU)
	}
	return p.target.Machine, p.target.CPU
}

// clockRate is what tells the guest's kernel how fast its clock counts, so that it need not
// find out by comparing clocks, in which a busy host deceives it.
func (p *plan) clockRate() []string {
	if p.target.ClockRate == "" || p.Accel != TCG || tsc.MHz() == 0 {
		return nil
	}
	return []string{fmt.Sprintf("%s%d000", p.target.ClockRate, tsc.MHz())}
}

// machineArgs are those that make the machine.
func (p *plan) machineArgs(ram ramKind) []string {
	host, dns := subnet.Others(p.network.guest)
	host6, dns6 := subnet.Others(p.network.guest6)
	netdev := fmt.Sprintf("user,id=net0,ipv4=on,net=%s,host=%s,dns=%s,dhcpstart=%s,ipv6=on,ipv6-prefix=%s,ipv6-prefixlen=%d,ipv6-host=%s,ipv6-dns=%s",
		p.network.guest.Masked(), host, dns, p.network.guest.Addr(),
		p.network.guest6.Masked().Addr(), p.network.guest6.Bits(), host6, dns6)
	if p.alone && p.Outbound.filtered() {
		netdev += ",restrict=on"
	}
	forwards := p.ports
	if ram.restored() {
		forwards = nil // added once the guest may see packets
	}
	for _, port := range forwards {
		// Port 0: the kernel chooses a free one, and nobody can take it
		// in between.
		netdev += fmt.Sprintf(",hostfwd=%s:127.0.0.1:0-%s:%d", port.Network, p.network.guest.Addr(), port.Guest)
	}
	machine, cpu := p.model()
	machine += ",accel=" + string(p.Accel)
	if ram != ownRAM {
		machine += ",memory-backend=ram"
	}
	args := []string{
		"-no-user-config", "-nodefaults", "-display", "none",
		"-no-reboot", // with panic=-1, a kernel panic ends QEMU
		"-machine", machine,
		"-cpu", cpu,
		"-m", strconv.Itoa(p.Memory),
		"-netdev", netdev,
		"-device", p.target.NetDevice + ",netdev=net0",
	}
	// What is restored has booted: reading kernel and initramfs again would be
	// most of QEMU's start.
	if !ram.restored() {
		args = append(args, "-kernel", p.Kernel,
			"-append", strings.Join(slices.Concat(p.target.Cmdline, p.clockRate(), p.Cmdline), " "))
		if p.Initramfs != "" {
			args = append(args, "-initrd", p.Initramfs)
		}
	}
	if ram != ownRAM {
		args = append(args, "-object", fmt.Sprintf("memory-backend-file,id=ram,size=%dM,mem-path=/proc/self/fd/%d,%s",
			p.Memory, ramFD, ram.backend()))
	}
	if ram.restored() {
		args = append(args, "-incoming", "defer")
	}
	return args
}
