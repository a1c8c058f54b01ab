// Package board holds the table of the boards. A board is an emulated machine for another system than Linux,
// such as an RTOS or a boot loader: it has no kernel command line, no initramfs and no agent. What a board has
// in common with a target, such as QEMU's binary and the types of its ELF files, is the target's.
//
// A board's name is that of the system and of the board in the system's own build, such as zephyr/qemu_x86.
package board

import (
	"fmt"
	"strings"

	"guesthouse.example/internal/target"
)

// A Load is how a board gets its image.
type Load string

const (
	Kernel   Load = "kernel"   // QEMU's -kernel puts the image into memory and starts it
	Firmware Load = "firmware" // QEMU's -bios puts the image at the place of the machine's firmware
)

// A Board describes an emulated machine and the system that runs on it.
type Board struct {
	Name string `json:"name" toml:"name"`

	// Target is the name of the target that has the board's processor.
	Target string `json:"target" toml:"target"`

	// Machine and CPU are the values of QEMU's -machine and -cpu, and Memory is the board's memory in MiB. CPUs is
	// the number of processors for which the system is built; 0 is 1.
	Machine string `json:"machine" toml:"machine"`
	CPU     string `json:"cpu" toml:"cpu"`
	Memory  int    `json:"memory_mib" toml:"memory"`
	CPUs    int    `json:"cpus,omitempty" toml:"cpus"`

	// Card is the network card, one of QEMU's devices. Slots are the places of the first card, the second and so on. If
	// there are none, QEMU chooses the place. Systems whose device tree fixes interrupts find a card in certain slots only.
	Card  string   `json:"card" toml:"card"`
	Slots []string `json:"slots,omitempty" toml:"slots"`

	Load Load `json:"load" toml:"load"`

	// Image is the name that the system's build gives to the file that QEMU starts, if that is not the ELF
	// file of the build. Beside are names of further files, in the directory of that file, which QEMU puts into
	// memory.
	Image  string   `json:"image,omitempty" toml:"image"`
	Beside []string `json:"beside,omitempty" toml:"beside"`

	// DebugExit is true if the machine has QEMU's device isa-debug-exit, by which the system ends QEMU.
	DebugExit bool `json:"debug_exit,omitempty" toml:"debug_exit"`

	// Semihosting is true if the system can end QEMU by ARM's semihosting. QEMU then serves no other request of
	// semihosting, such as one for a file of the host.
	Semihosting bool `json:"semihosting,omitempty" toml:"semihosting"`

	// Globals are values of QEMU's -global.
	Globals []string `json:"globals,omitempty" toml:"globals"`

	// Ready is the regular expression of a ready system, where the user gives none.
	Ready string `json:"ready" toml:"ready"`

	// Autoboot is a regular expression for the countdown of a boot loader, which any key stops. It is empty
	// if there is none.
	Autoboot string `json:"autoboot,omitempty" toml:"autoboot"`

	// Crashes are regular expressions for crashes that only this system prints, at the start of a line. Package
	// crash knows what no other system could print by chance.
	Crashes []string `json:"crashes,omitempty" toml:"crashes"`

	// PowerOff is the command on the console that powers the machine off; empty if the system has none.
	PowerOff string `json:"power_off,omitempty" toml:"power_off"`
}

const (
	// zephyrReady matches the prompt of Zephyr's shell, or the banner of an image without a shell.
	zephyrReady = `^\*\*\* Booting Zephyr OS .*\*\*\*|^uart:~\$ `
	ubootReady  = `^=> `
	nuttxReady  = `^nsh> `

	autoboot = `Hit any key to stop autoboot`
)

// Sources of the rows: board.cmake of each board in Zephyr 3.4 (of qemu_cortex_a7: 4.4), the documentation of the boards in NuttX 12, and
// doc/board/emulation of U-Boot 2023.01.
var table = []Board{
	{
		Name: "zephyr/qemu_x86", Target: "x86", Machine: "q35", CPU: "qemu32,+nx,+pae", Memory: 32,
		Card: "e1000", Slots: []string{"2", "3"}, // the device tree has their interrupt
		Load: Kernel, DebugExit: true, Ready: zephyrReady,
	},
	{
		Name: "zephyr/qemu_x86_64", Target: "x86_64", Machine: "q35", CPU: "qemu64,+x2apic", Memory: 32, CPUs: 2,
		Card: "e1000", Slots: []string{"2", "3"},
		Load: Kernel, Image: "zephyr-qemu-locore.elf", Beside: []string{"zephyr-qemu-main.elf"},
		DebugExit: true, Ready: zephyrReady,
	},
	{
		Name: "zephyr/qemu_cortex_a53", Target: "arm64", Machine: "virt,secure=on,gic-version=3", CPU: "cortex-a53", Memory: 128,
		Card: "e1000",
		Load: Kernel, Semihosting: true, Ready: zephyrReady,
	},
	{
		Name: "zephyr/qemu_cortex_a7", Target: "arm", Machine: "virt,secure=on,gic-version=2", CPU: "cortex-a7", Memory: 128,
		Card: "virtio-net-device", Globals: []string{"virtio-mmio.force-legacy=false"},
		Load: Kernel, Semihosting: true, Ready: zephyrReady,
	},
	{
		Name: "nuttx/qemu-armv8a", Target: "arm64", Machine: "virt,virtualization=on,gic-version=3", CPU: "cortex-a53", Memory: 128,
		Card: "virtio-net-device", Globals: []string{"virtio-mmio.force-legacy=false"},
		Load: Kernel, Semihosting: true, Ready: nuttxReady, PowerOff: "poweroff",
	},
	{
		Name: "nuttx/qemu-armv7a", Target: "arm", Machine: "virt,virtualization=off,gic-version=2", CPU: "cortex-a7", Memory: 128,
		Card: "virtio-net-device", Globals: []string{"virtio-mmio.force-legacy=false"},
		Load: Kernel, Semihosting: true, Ready: nuttxReady, PowerOff: "poweroff",
	},
	{
		Name: "uboot/qemu_arm64", Target: "arm64", Machine: "virt", CPU: "cortex-a57", Memory: 128,
		Card: "virtio-net-pci",
		Load: Firmware, Ready: ubootReady, Autoboot: autoboot, PowerOff: "poweroff",
	},
	{
		Name: "uboot/qemu_arm", Target: "arm", Machine: "virt,highmem=off", CPU: "cortex-a15", Memory: 128,
		Card:    "virtio-net-pci",
		Crashes: []string{"data abort$", "prefetch abort$", "undefined instruction$", "software interrupt$", "not used$"},
		Load:    Firmware, Ready: ubootReady, Autoboot: autoboot, PowerOff: "poweroff",
	},
	{
		Name: "uboot/qemu-x86", Target: "x86", Machine: "pc", CPU: "qemu32", Memory: 128,
		Card: "e1000",
		Load: Firmware, DebugExit: true, Ready: ubootReady, Autoboot: autoboot,
	},
	{
		Name: "uboot/qemu-x86_64", Target: "x86_64", Machine: "pc", CPU: "qemu64", Memory: 128,
		Card: "e1000",
		Load: Firmware, DebugExit: true, Ready: ubootReady, Autoboot: autoboot,
	},
}

// All returns every board, in the order in which guesthouse lists them.
func All() []Board { return append([]Board(nil), table...) }

// Lookup returns the board with a name. Its error lists all names.
func Lookup(name string) (Board, error) {
	var names []string
	for _, b := range table {
		if b.Name == name {
			return b, nil
		}
		names = append(names, b.Name)
	}
	return Board{}, fmt.Errorf("unknown board %q: the boards are %s", name, strings.Join(names, ", "))
}

// Slot returns the place of a network card, or "" if QEMU chooses it.
func (b Board) Slot(card int) (string, error) {
	if len(b.Slots) == 0 {
		return "", nil
	}
	if card >= len(b.Slots) {
		return "", fmt.Errorf("board %s: %d network cards: it has slots for %d", b.Name, card+1, len(b.Slots))
	}
	return b.Slots[card], nil
}

// Hardware returns the board's target with the board's hardware in place of the target's. It has nothing of
// Linux, and no host runs it under KVM.
func (b Board) Hardware() (target.Target, error) {
	t, err := target.Lookup(b.Target)
	t.Machine, t.CPU, t.NetDevice = b.Machine, b.CPU, ""
	t.KVMHosts, t.KVMMachine, t.KVMCPU = nil, "", ""
	t.Cmdline, t.CmdlineMax, t.ClockRate, t.EarlyConsole = nil, 0, "", nil
	t.Modules, t.OptionalModules, t.DeviceModules, t.ShareModules = nil, nil, nil, nil
	return t, err
}
