// Package target holds the table of the targets: the emulated machines that
// guesthouse can boot. Everything that depends on the target is a field of the
// table. No other package compares a target's name.
package target

import (
	"debug/elf"
	"debug/pe"
	"fmt"
	"strings"
)

// A Target describes one emulated machine and the software that runs on it.
type Target struct {
	// Name is the name that users write: "x86", "x86_64", "arm" or "arm64".
	Name string

	// GOARCH and GOARM select the Go compiler's output for guest programs;
	// GOARM is empty except for 32-bit ARM.
	GOARCH, GOARM string

	// DebianArch and KernelPackage name the Debian package of the kernel that
	// the machine boots. KernelPackage is a metapackage, which depends on the
	// package that holds the files.
	DebianArch, KernelPackage string

	// PEMachine is the machine type in the PE header of the machine's Linux
	// kernels, which are EFI programs too. ELFMachines are the machine types of
	// the ELF files that QEMU boots on it; the first is the machine's own.
	PEMachine   uint16
	ELFMachines []elf.Machine

	// QEMU is the emulator's binary, and QEMUPackage is the Debian package that
	// installs it.
	QEMU, QEMUPackage string

	// Machine and CPU are the values of QEMU's -machine and -cpu.
	Machine, CPU string

	// MaxCPUs is the most processors that the machine and its kernel support, and MaxMemory the most
	// memory in MiB that the machine has addresses for; 0 if the host's memory is the only limit.
	MaxCPUs, MaxMemory int

	// KVMHosts are the values of GOARCH of the hosts that can run the machine
	// under KVM; empty if no host can. KVMMachine and KVMCPU, if set, replace
	// Machine and CPU under KVM: the host's processor may not support the model
	// that is cheapest to emulate.
	KVMHosts           []string
	KVMMachine, KVMCPU string

	// NetDevice is the value of QEMU's -device for the network card, without
	// the netdev= property. guest_announce=off: the agent of a restored guest
	// sends one ARP announcement for each address, while announcements that QEMU
	// asks for would keep the guest busy for a second. (Migrating with
	// announce-rounds=0 instead makes QEMU 7.2 crash at power-off.)
	NetDevice string

	// Modules are the kernel modules that drive the machine's devices. Their
	// dependencies are not listed.
	Modules []string

	// OptionalModules are loaded after Modules if the kernel has them. The
	// machine boots without them too.
	OptionalModules []string

	// DeviceModules are in the initramfs if the kernel has them. They are loaded
	// if the machine has a device that they drive: arguments for QEMU may add one.
	DeviceModules []string

	// ShareModules are in the initramfs if the kernel has them. Init loads them
	// when the machine mounts directories of the host.
	ShareModules []string

	// Cmdline is the kernel command line that selects the console and skips what
	// makes the boot of an emulated machine slow.
	Cmdline []string

	// CmdlineMax is the length limit in bytes of the kernel's command line; the
	// kernel ignores the rest. Source: COMMAND_LINE_SIZE, without the NUL, in
	// arch/*/include/asm/setup.h and include/uapi/asm/setup.h of Linux.
	CmdlineMax int

	// ClockRate is the kernel argument, without its value in kHz, that tells the
	// kernel the rate of its clock's counter; empty if the kernel can read the
	// rate from the machine. Under emulation the counter is the host's TSC.
	ClockRate string

	// EarlyConsole is added to Cmdline to make a kernel print as early as it can.
	EarlyConsole []string
}

// quick makes any Linux kernel boot fast in emulation, and reboot when it panics. At the
// reboot QEMU exits (-no-reboot). The last line turns off the kernel's watchdogs: if the
// host is busy or stops QEMU, they would report that the guest hangs, in the middle of a
// console line.
var quick = []string{"quiet", "mitigations=off", "cryptomgr.notests", "nokaslr", "random.trust_cpu=on", "panic=-1",
	"nowatchdog", "rcupdate.rcu_cpu_stall_suppress=1", "workqueue.watchdog_thresh=0",
	"psi=0", "sysctl.vm.stat_interval=3600", "sysctl.vm.compaction_proactiveness=0"}

// agent drives the port of the guest's agent.
var agent = []string{"virtio_console"}

// disk drives the disk of the guest's agent, and -drive if=virtio.
var disk = []string{"virtio_blk"}

// shares are the file systems of directories of the host.
var shares = []string{"fuse", "overlay"}

var table = []Target{
	{
		Name:            "x86",
		GOARCH:          "386",
		DebianArch:      "i386",
		KernelPackage:   "linux-image-686",
		PEMachine:       pe.IMAGE_FILE_MACHINE_I386,
		ELFMachines:     []elf.Machine{elf.EM_386},
		QEMU:            "qemu-system-i386",
		QEMUPackage:     "qemu-system-x86",
		Machine:         "q35",
		CPU:             "qemu32,+rdrand",
		MaxCPUs:         32, // of Debian's kernel
		KVMHosts:        []string{"amd64"},
		NetDevice:       "virtio-net-pci,romfile=,guest_announce=off",
		Modules:         []string{"virtio_pci", "virtio_net"},
		OptionalModules: agent,
		DeviceModules:   disk,
		ShareModules:    shares,
		Cmdline:         append([]string{"console=ttyS0", "tsc=reliable", "no_timer_check"}, quick...),
		CmdlineMax:      2047,
		ClockRate:       "tsc_early_khz=",
		EarlyConsole:    []string{"ignore_loglevel", "earlyprintk=ttyS0,115200"},
	},
	{
		Name:          "x86_64",
		GOARCH:        "amd64",
		DebianArch:    "amd64",
		KernelPackage: "linux-image-cloud-amd64",
		PEMachine:     pe.IMAGE_FILE_MACHINE_AMD64,
		ELFMachines:   []elf.Machine{elf.EM_X86_64, elf.EM_386},
		QEMU:          "qemu-system-x86_64",
		QEMUPackage:   "qemu-system-x86",
		Machine:       "q35",
		// qemu64 is faster than max: it has fewer features to emulate and
		// to set up. Without rdrand the first read of random bytes would
		// wait for a minute. Under KVM the model is the same, on Intel's
		// and on AMD's processors: "host" sets registers that a host may
		// lack if it is a virtual machine itself, and then QEMU aborts.
		CPU:             "qemu64,+rdrand",
		MaxCPUs:         255, // of the interrupt controller that TCG emulates
		KVMHosts:        []string{"amd64"},
		NetDevice:       "virtio-net-pci,romfile=,guest_announce=off", // no boot ROM
		Modules:         []string{"virtio_pci", "virtio_net"},
		OptionalModules: agent,
		DeviceModules:   disk,
		ShareModules:    shares,
		// The emulated TSC never drifts, so no watchdog need check it.
		Cmdline:      append([]string{"console=ttyS0", "tsc=reliable", "no_timer_check"}, quick...),
		CmdlineMax:   2047,
		ClockRate:    "tsc_early_khz=",
		EarlyConsole: []string{"ignore_loglevel", "earlyprintk=ttyS0,115200"},
	},
	{
		Name:            "arm",
		GOARCH:          "arm",
		GOARM:           "7",
		DebianArch:      "armhf",
		KernelPackage:   "linux-image-armmp-lpae",
		PEMachine:       pe.IMAGE_FILE_MACHINE_THUMB,
		ELFMachines:     []elf.Machine{elf.EM_ARM},
		QEMU:            "qemu-system-arm",
		QEMUPackage:     "qemu-system-arm",
		Machine:         "virt,highmem=off",
		MaxCPUs:         8,            // of GICv2, the machine's interrupt controller
		MaxMemory:       3 << 10,      // without highmem, the machine has 32-bit addresses, and devices take a quarter
		CPU:             "cortex-a15", // Linux 5.7 and QEMU 5.2 dropped KVM on 32-bit ARM
		NetDevice:       "virtio-net-pci,romfile=,guest_announce=off",
		Modules:         []string{"virtio_pci", "virtio_net"},
		OptionalModules: agent,
		DeviceModules:   disk,
		ShareModules:    shares,
		Cmdline:         append([]string{"console=ttyAMA0"}, quick...),
		CmdlineMax:      1023,
		EarlyConsole:    []string{"ignore_loglevel", "earlycon"},
	},
	{
		Name:            "arm64",
		GOARCH:          "arm64",
		DebianArch:      "arm64",
		KernelPackage:   "linux-image-cloud-arm64",
		PEMachine:       pe.IMAGE_FILE_MACHINE_ARM64,
		ELFMachines:     []elf.Machine{elf.EM_AARCH64},
		QEMU:            "qemu-system-aarch64",
		QEMUPackage:     "qemu-system-arm",
		Machine:         "virt",
		MaxCPUs:         8,            // of GICv2, the machine's interrupt controller
		CPU:             "cortex-a57", // max boots six times slower, because of pointer authentication
		KVMHosts:        []string{"arm64"},
		KVMMachine:      "virt,gic-version=host", // the default is GICv2, which few hosts support
		KVMCPU:          "host",                  // KVM on ARM supports no other
		NetDevice:       "virtio-net-pci,romfile=,guest_announce=off",
		Modules:         []string{"virtio_pci", "virtio_net"},
		OptionalModules: agent,
		DeviceModules:   disk,
		ShareModules:    shares,
		Cmdline:         append([]string{"console=ttyAMA0"}, quick...),
		CmdlineMax:      2047,
		EarlyConsole:    []string{"ignore_loglevel", "earlycon"},
	},
}

// All returns every target, in the order in which guesthouse lists and tests them.
func All() []Target { return append([]Target(nil), table...) }

// Names returns the names of all targets.
func Names() []string {
	names := make([]string, len(table))
	for i, t := range table {
		names[i] = t.Name
	}
	return names
}

// Lookup returns the target with a name. Its error lists all names.
func Lookup(name string) (Target, error) {
	for _, t := range table {
		if t.Name == name {
			return t, nil
		}
	}
	return Target{}, fmt.Errorf("unknown target %q: the targets are %s", name, strings.Join(Names(), ", "))
}
