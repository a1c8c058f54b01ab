// Package target is the one table of what differs between the emulated
// machines. Everything that depends on the target is a field here, so that no
// other package ever asks which target it works for.
package target

import (
	"debug/elf"
	"debug/pe"
	"fmt"
	"strings"
)

// A Target describes one emulated machine and the software that fits it.
type Target struct {
	// Name is what users write: "x86", "x86_64", "arm", "arm64".
	Name string

	// GOARCH and GOARM select the Go compiler's output for guest programs;
	// GOARM is empty except for 32-bit ARM.
	GOARCH, GOARM string

	// DebianArch and KernelPackage name the Debian package whose kernel the
	// machine boots. KernelPackage is a metapackage: it depends on the
	// package that holds the files.
	DebianArch, KernelPackage string

	// PEMachine is the machine type in the header of the machine's Linux
	// kernels, which are EFI programs too, and ELFMachines are those of the ELF
	// files that QEMU starts on it; the first is the machine's own.
	PEMachine   uint16
	ELFMachines []elf.Machine

	// QEMU is the emulator's binary and QEMUPackage the Debian package that
	// installs it.
	QEMU, QEMUPackage string

	// Machine and CPU are the values of QEMU's -machine and -cpu.
	Machine, CPU string

	// KVMHosts are the values of GOARCH of the hosts whose processors run the
	// machine's code under KVM; none if KVM never does. KVMMachine and KVMCPU,
	// if they are set, take the place of Machine and CPU there: what is cheap
	// to emulate need not be what the host's processor can be.
	KVMHosts           []string
	KVMMachine, KVMCPU string

	// NetDevice is the value of QEMU's -device for the network card, up to
	// and without its netdev= property. A restored guest
	// announces itself, once; asked to by QEMU it would be busy with that for a
	// second. (Migrating with announce-rounds=0 instead makes QEMU 7.2 crash at
	// power-off.)
	NetDevice string

	// Modules are the kernel modules that drive the machine's devices.
	// Those they depend on are found from the modules themselves.
	Modules []string

	// OptionalModules are loaded after them where the kernel has them: without
	// them the machine boots all the same.
	OptionalModules []string

	// DeviceModules are in the guest where the kernel has them, and loaded where the machine
	// has a device that they drive: QEMU's command line may give it one.
	DeviceModules []string

	// Cmdline is the kernel command line that selects the console and
	// skips what costs boot time in an emulated machine.
	Cmdline []string

	// ClockRate is the kernel argument, up to its value in kHz, that tells the
	// kernel how fast the counter counts that is its clock; empty where the kernel can
	// read that from the machine. Under emulation the counter is the host's TSC.
	ClockRate string

	// EarlyConsole is added to Cmdline to make a kernel print from its first
	// moments on.
	EarlyConsole []string
}

// quick is what makes any Linux kernel boot fast in emulation and end the
// emulator when it panics (with QEMU's -no-reboot). Its last line turns off what
// takes a host that is busy, or stops QEMU, for a guest that hangs, and says so
// in the middle of a line of the console.
var quick = []string{"quiet", "mitigations=off", "cryptomgr.notests", "nokaslr", "random.trust_cpu=on", "panic=-1",
	"nowatchdog", "rcupdate.rcu_cpu_stall_suppress=1", "workqueue.watchdog_thresh=0"}

// agent drives the line between the guest's agent and the harness.
var agent = []string{"virtio_console"}

// disk drives -drive if=virtio.
var disk = []string{"virtio_blk"}

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
		KVMHosts:        []string{"amd64"},
		NetDevice:       "virtio-net-pci,romfile=,guest_announce=off",
		Modules:         []string{"virtio_pci", "virtio_net"},
		OptionalModules: agent,
		DeviceModules:   disk,
		Cmdline:         append([]string{"console=ttyS0", "tsc=reliable", "no_timer_check"}, quick...),
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
		// Faster than max, with fewer features to emulate and to set
		// up; but without rdrand the first read of random bytes waits
		// for a minute. Under KVM it is the same processor, on Intel's and
		// AMD's alike; "host" would set registers that a host which is a
		// guest itself may not have, and then QEMU aborts.
		CPU:             "qemu64,+rdrand",
		KVMHosts:        []string{"amd64"},
		NetDevice:       "virtio-net-pci,romfile=,guest_announce=off", // no boot ROM
		Modules:         []string{"virtio_pci", "virtio_net"},
		OptionalModules: agent,
		DeviceModules:   disk,
		// Nothing watches the clock: the emulated TSC never drifts.
		Cmdline:      append([]string{"console=ttyS0", "tsc=reliable", "no_timer_check"}, quick...),
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
		CPU:             "cortex-a15", // no KVM: Linux 5.7 and QEMU 5.2 dropped it
		NetDevice:       "virtio-net-pci,romfile=,guest_announce=off",
		Modules:         []string{"virtio_pci", "virtio_net"},
		OptionalModules: agent,
		DeviceModules:   disk,
		Cmdline:         append([]string{"console=ttyAMA0"}, quick...),
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
		CPU:             "cortex-a57", // max costs six times the boot: pointer authentication
		KVMHosts:        []string{"arm64"},
		KVMMachine:      "virt,gic-version=host", // few hosts can be a GICv2, the machine's default
		KVMCPU:          "host",                  // KVM on ARM knows no other
		NetDevice:       "virtio-net-pci,romfile=,guest_announce=off",
		Modules:         []string{"virtio_pci", "virtio_net"},
		OptionalModules: agent,
		DeviceModules:   disk,
		Cmdline:         append([]string{"console=ttyAMA0"}, quick...),
		EarlyConsole:    []string{"ignore_loglevel", "earlycon"},
	},
}

// All returns every target, in the order in which they are shown and tested.
func All() []Target { return append([]Target(nil), table...) }

// Names returns the names of all targets.
func Names() []string {
	names := make([]string, len(table))
	for i, t := range table {
		names[i] = t.Name
	}
	return names
}

// Lookup returns the target of that name. Its error lists the names there are.
func Lookup(name string) (Target, error) {
	for _, t := range table {
		if t.Name == name {
			return t, nil
		}
	}
	return Target{}, fmt.Errorf("unknown target %q: the targets are %s", name, strings.Join(Names(), ", "))
}
