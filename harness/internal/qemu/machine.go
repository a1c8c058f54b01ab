// Package qemu makes QEMU's command lines and starts QEMU. It also limits what the process may do on the
// host, and parses the port forwards of QEMU's user network.
//
// It does not talk to a running QEMU: package qmp does.
package qemu

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"guesthouse.example/harness/internal/tsc"
	"guesthouse.example/internal/subnet"
	"guesthouse.example/internal/target"
)

// A Machine is an emulated machine as QEMU's command line describes it.
type Machine struct {
	Binary string // QEMU's, as package os/exec takes it
	Target target.Target

	Kernel    string
	Initramfs string   // empty for a kernel that needs none
	Cmdline   []string // added to the target's kernel command line

	// Board is true for a machine of another system than Linux: it has no kernel command line and no device
	// for an agent. Firmware is true if Kernel takes the place of the machine's firmware.
	Board, Firmware bool
	Semihosting     bool     // the guest can end QEMU by ARM's semihosting, and do nothing else by it
	Globals         []string // values of -global
	Devices         []string // values of -device
	Loaders         []Loader

	Memory int  // MiB
	CPUs   int  // the number of the guest's processors; under TCG each is a thread of QEMU
	KVM    bool // the host's processor runs the guest; otherwise TCG emulates its processor

	Disks []Disk

	Network  Network
	Forwards []Forward // ports of the guest that QEMU forwards from its start on
	Filtered bool      // the harness filters what the guest sends
	Capture  bool      // QEMU writes the frames of the card on its user network into Process.Capture

	// Cards are the hardware addresses of network cards whose frames the harness exchanges with QEMU, at most
	// MaxCards. If there are any, the machine has no card on QEMU's user network, and no forwards.
	Cards []string

	// CardDevices are the values of -device, without the netdev= property, of the first network cards. The others
	// are the target's.
	CardDevices []string

	UserArgs []string // the user's own, at the end of the command line
}

// A Loader is a file that QEMU puts into the memory of a machine before the machine starts. An ELF file has
// addresses of its own, and the bytes of any other file go to Addr.
type Loader struct {
	File string
	Addr uint64
}

// device returns the value of -device.
func (l Loader) device() string {
	device := "loader,file=" + escape(l.File)
	if l.Addr != 0 {
		device += fmt.Sprintf(",addr=%#x", l.Addr)
	}
	return device
}

// escape returns a value for a property in a list such as that of -device, where a comma would end the value.
func escape(value string) string { return strings.ReplaceAll(value, ",", ",,") }

// Args returns the command line, without the binary, of a QEMU that the harness controls. The machine is
// stopped at first (-S), so that the harness reads the console from its first byte. The files are those of m's
// disks.
func (m Machine) Args(ram RAM, disks []DiskFiles) []string {
	var filter []string
	if m.Filtered {
		filter = filterArgs()
	}
	if m.Capture {
		// After the filter, the capture has also what the filter stops: for frames from the guest, QEMU begins at
		// the last object.
		filter = append(filter, "-object", "filter-dump,id=capture,netdev=net0,file=/proc/self/fd/"+strconv.Itoa(captureFD))
	}
	return slices.Concat([]string{"-S", "-global", migrationEvents}, sandboxArgs(m.Binary, m.UserArgs),
		m.diskBackends(disks), m.machineArgs(ram, false), m.connectionArgs(), m.diskArgs(), filter, m.UserArgs)
}

// TerminalArgs returns the command line of a QEMU that runs without the harness, with its console on
// the terminal. Where the harness would filter the guest's network, QEMU cuts the guest off from it.
func (m Machine) TerminalArgs() []string {
	return slices.Concat(m.diskDrives(), m.machineArgs(OwnRAM, true), []string{"-serial", "mon:stdio"}, m.UserArgs)
}

// IdentityArgs returns the arguments that a machine and its template must have in common. They do not
// name files, because the template's identity has the hashes of the files. They do not have forwards,
// because a machine gets its forwards after it is restored.
func (m Machine) IdentityArgs() []string {
	m.Forwards, m.Kernel = nil, "KERNEL"
	m.Cards = make([]string, len(m.Cards)) // the agent gives a restored guest its own
	if m.Initramfs != "" {
		m.Initramfs = "INITRAMFS"
	}
	m.Loaders = slices.Clone(m.Loaders)
	for i := range m.Loaders {
		m.Loaders[i].File = fmt.Sprint("LOADER", i)
	}
	return slices.Concat(m.machineArgs(OwnRAM, false), m.diskArgs())
}

// migrationEvents makes QEMU report the progress of a migration in QMP events.
const migrationEvents = "migration.x-events=on"

// Model returns the values of QEMU's -machine, without its options, and -cpu.
func (m Machine) Model() (machine, cpu string) {
	if m.KVM {
		return cmp.Or(m.Target.KVMMachine, m.Target.Machine), cmp.Or(m.Target.KVMCPU, m.Target.CPU)
	}
	return m.Target.Machine, m.Target.CPU
}

// machineArgs returns the arguments that describe the machine. If alone is true, QEMU runs without the
// harness and its filter, and cuts a filtered guest off from the network itself.
func (m Machine) machineArgs(ram RAM, alone bool) []string {
	accel := "tcg"
	if m.KVM {
		accel = "kvm"
	}
	machine, cpu := m.Model()
	machine += ",accel=" + accel
	if ram != OwnRAM {
		machine += ",memory-backend=ram"
	}
	args := []string{
		"-no-user-config", "-nodefaults", "-display", "none",
		"-no-reboot", // with panic=-1, a kernel panic ends QEMU
		"-machine", machine,
		"-cpu", cpu,
		"-m", strconv.Itoa(m.Memory),
		"-smp", strconv.Itoa(max(1, m.CPUs)),
	}
	args = append(args, m.networkCards(!ram.restored(), alone)...)
	if m.Semihosting {
		// QEMU sends all requests but those to exit to a GDB, and there is none. With target=native, a guest could
		// open and change every file of the user. The argument takes the place of the kernel's path.
		args = append(args, "-semihosting-config", "enable=on,target=gdb,arg=image")
	}
	for _, value := range m.Globals {
		args = append(args, "-global", value)
	}
	for _, device := range m.Devices {
		args = append(args, "-device", device)
	}
	for _, l := range m.Loaders {
		args = append(args, "-device", l.device())
	}
	args = append(args, m.diskDevices()...)
	switch {
	case m.Firmware:
		args = append(args, "-bios", m.Kernel)
	case m.Board:
		// QEMU's machines differ with and without an image: on ARM, the image decides who answers PSCI.
		args = append(args, "-kernel", m.Kernel)
	case !ram.restored():
		// A restored machine has booted. Reading kernel and initramfs again would take most of QEMU's
		// start.
		args = append(args, "-kernel", m.Kernel, "-append", m.KernelCmdline())
		if m.Initramfs != "" {
			args = append(args, "-initrd", m.Initramfs)
		}
	}
	if ram != OwnRAM {
		args = append(args, "-object", fmt.Sprintf("memory-backend-file,id=ram,size=%dM,mem-path=/proc/self/fd/%d,%s",
			m.Memory, ramFD, ram.backend()))
	}
	if ram.restored() {
		args = append(args, "-incoming", "defer")
	}
	return args
}

// KernelCmdline returns the kernel's command line.
func (m Machine) KernelCmdline() string {
	var network []string
	if m.AwaitsAddresses() {
		network = []string{"guesthouse.ip=" + subnet.FromHarness}
	}
	return strings.Join(slices.Concat(m.Target.Cmdline, m.clockRate(), network, m.Cmdline), " ")
}

// AwaitsAddresses reports whether the guest waits at boot until the harness tells it the addresses of its
// cards. A user who writes guesthouse.ip= or guesthouse.ip6= on the kernel command line chooses another way.
func (m Machine) AwaitsAddresses() bool {
	return len(m.Cards) > 0 && m.Initramfs != "" && !slices.ContainsFunc(strings.Fields(strings.Join(m.Cmdline, " ")), func(word string) bool {
		return strings.HasPrefix(word, "guesthouse.ip=") || strings.HasPrefix(word, "guesthouse.ip6=")
	})
}

// MaxCards is the most network cards that a machine has on streams.
const MaxCards = 8

// networkCards returns the network cards: the one on QEMU's user network, or those on streams.
func (m Machine) networkCards(forwards, alone bool) (args []string) {
	if len(m.Cards) == 0 {
		return []string{"-netdev", m.netdev(forwards, alone), "-device", m.cardDevice(0) + ",netdev=net0"}
	}
	for i, mac := range m.Cards {
		device := fmt.Sprintf("%s,netdev=net%d", m.cardDevice(i), i)
		if mac != "" {
			device += ",mac=" + mac
		}
		args = append(args, "-netdev", fmt.Sprintf("stream,id=net%d,addr.type=fd,addr.str=%d", i, firstCardFD+i), "-device", device)
	}
	return args
}

// cardDevice returns the value of -device of a network card, without the netdev= property.
func (m Machine) cardDevice(i int) string {
	if i < len(m.CardDevices) {
		return m.CardDevices[i]
	}
	return m.Target.NetDevice
}

// netdev returns the value of -netdev. A restored machine gets its forwards later, when its guest has
// been reseeded.
func (m Machine) netdev(forwards, alone bool) string {
	host, dns := subnet.Others(m.Network.Guest)
	host6, dns6 := subnet.Others(m.Network.Guest6)
	netdev := fmt.Sprintf("user,id=net0,ipv4=on,net=%s,host=%s,dns=%s,dhcpstart=%s,ipv6=on,ipv6-prefix=%s,ipv6-prefixlen=%d,ipv6-host=%s,ipv6-dns=%s",
		m.Network.Guest.Masked(), host, dns, m.Network.Guest.Addr(),
		m.Network.Guest6.Masked().Addr(), m.Network.Guest6.Bits(), host6, dns6)
	if alone && m.Filtered {
		netdev += ",restrict=on"
	}
	if forwards {
		for _, f := range m.Forwards {
			// For port 0, the host's kernel chooses a free port when QEMU binds the socket.
			netdev += fmt.Sprintf(",hostfwd=%s:127.0.0.1:0-%s:%d", f.Network, m.Network.Guest.Addr(), f.Guest)
		}
	}
	return netdev
}

// clockRate returns the kernel argument for the rate of the guest's clock. A guest that measures the rate
// itself measures it wrong on a busy host; see package tsc.
func (m Machine) clockRate() []string {
	if m.Target.ClockRate == "" || m.KVM || tsc.MHz() == 0 {
		return nil
	}
	return []string{fmt.Sprintf("%s%d000", m.Target.ClockRate, tsc.MHz())}
}
