package harness

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"regexp"
	"slices"
	"strings"
)

// A NIC is a network card. Empty fields are QEMU's choice, except Model.
type NIC struct {
	Model string `json:"model"`          // a device of QEMU: "e1000", "virtio-net-pci"
	Bus   string `json:"bus,omitempty"`  // the name of a bus in QEMU: "pcie.0"
	Slot  string `json:"slot,omitempty"` // the card's place on the bus, in hexadecimal: "2" or "2.0"
	MAC   string `json:"mac,omitempty"`  // the address: "52:54:00:12:34:56"
}

var (
	// deviceName matches names of devices and buses. A comma would begin another property of the device.
	deviceName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)
	slotNumber = regexp.MustCompile(`^(0x)?[0-9a-fA-F]{1,2}(\.[0-7])?$`)
)

// device returns the value of QEMU's -device, without the netdev= property.
func (n NIC) device() (string, error) {
	switch {
	case n.Model == "":
		return "", errors.New("name its model, such as e1000")
	case !deviceName.MatchString(n.Model):
		return "", fmt.Errorf("model %q: write the name of one of QEMU's devices, such as e1000", n.Model)
	case n.Bus != "" && !deviceName.MatchString(n.Bus):
		return "", fmt.Errorf("bus %q: write the name of one of QEMU's buses, such as pcie.0", n.Bus)
	case n.Slot != "" && !slotNumber.MatchString(n.Slot):
		return "", fmt.Errorf("slot %q: write a hexadecimal number, such as 2 or 2.0", n.Slot)
	}
	if n.MAC != "" {
		if mac, err := net.ParseMAC(n.MAC); err != nil || len(mac) != 6 {
			return "", fmt.Errorf("address %q: write six bytes as in 52:54:00:12:34:56", n.MAC)
		}
	}
	device := n.Model
	for _, property := range []struct{ name, value string }{{"bus", n.Bus}, {"addr", n.Slot}, {"mac", n.MAC}} {
		if property.value != "" {
			device += "," + property.name + "=" + property.value
		}
	}
	if !n.onMMIO() {
		device += ",romfile=" // a card of a PCI bus would boot from the network
	}
	return device, nil
}

// onMMIO reports whether the card is on a virtio-mmio bus. All other cards that QEMU can add are on a PCI bus.
func (n NIC) onMMIO() bool { return strings.HasSuffix(n.Model, "-device") }

// buses are those on which a machine has network cards. The keys are QEMU's names of the machines, without a version.
var buses = map[string]struct {
	pci  string
	mmio int // the number of the buses virtio-mmio-bus.0 and so on
}{
	"q35":  {pci: "pcie.0"},
	"pc":   {pci: "pci.0"},
	"virt": {pci: "pcie.0", mmio: 32},
}

// machineVersion is the end of a name of a machine that keeps the machine as an older QEMU had it: virt-7.2.
var machineVersion = regexp.MustCompile(`-\d+(\.\d+)*$`)

// checkBus refuses a card on a bus that the machine lacks. It knows the buses of QEMU's most common machines.
func (n NIC) checkBus(machine string) error {
	machine, _, _ = strings.Cut(machine, ",")
	kind := machineVersion.ReplaceAllString(machine, "")
	switch kind {
	case "pc-q35":
		kind = "q35"
	case "pc-i440fx":
		kind = "pc"
	}
	has, known := buses[kind]
	if !known {
		return nil
	}
	if n.onMMIO() {
		switch {
		case has.mmio == 0:
			return fmt.Errorf("the machine %s has no virtio-mmio bus for a %s: use %s", machine, n.Model, strings.TrimSuffix(n.Model, "-device")+"-pci")
		case n.Slot != "":
			return fmt.Errorf("slot %s: a virtio-mmio bus has no slots: name a bus, such as virtio-mmio-bus.0", n.Slot)
		case n.Bus == "":
			return nil
		}
		for i := range has.mmio {
			if n.Bus == fmt.Sprintf("virtio-mmio-bus.%d", i) {
				return nil
			}
		}
		return fmt.Errorf("the machine %s has no virtio-mmio bus %s: it has virtio-mmio-bus.0 to virtio-mmio-bus.%d", machine, n.Bus, has.mmio-1)
	}
	if n.Bus != "" && n.Bus != has.pci {
		return fmt.Errorf("the machine %s has no bus %s: its PCI bus is %s", machine, n.Bus, has.pci)
	}
	return nil
}

// setCards gives the machine the network cards of the Spec, or those of the board.
func (p *plan) setCards() error {
	cards := max(1, len(p.spec.Net))
	if n := len(p.spec.NICs); n > cards {
		return fmt.Errorf("%d network cards in NICs: the machine has %d, one for each network of Spec.Net, or else one", n, cards)
	}
	nics := slices.Clone(p.spec.NICs)
	for i := len(nics); p.board != nil && i < cards; i++ {
		slot, err := p.board.Slot(i)
		if err != nil {
			return err
		}
		nics = append(nics, NIC{Model: p.board.Card, Slot: slot})
	}
	taken := make(map[NIC]bool)
	for i, n := range nics {
		device, err := n.device()
		if err == nil && len(p.spec.QEMUArgs) == 0 { // they may add a bus
			err = n.checkBus(p.qemu.Target.Machine)
		}
		place := NIC{Bus: n.Bus, Slot: strings.TrimPrefix(n.Slot, "0x")}
		switch {
		case err != nil:
		case n.MAC != "" && len(p.spec.Net) > 0:
			err = fmt.Errorf("address %s: the networks of Spec.Net choose the addresses", n.MAC)
		case (n.Slot != "" || n.onMMIO() && n.Bus != "") && taken[place]:
			err = fmt.Errorf("another card is in the same place, %s", strings.TrimSpace(cmp.Or(n.Bus, "the default bus")+" "+n.Slot))
		}
		if err != nil {
			return fmt.Errorf("network card %d: %w", i, err)
		}
		taken[place] = true
		p.qemu.CardDevices = append(p.qemu.CardDevices, device)
	}
	return nil
}

// fileOptions are the properties of QEMU's machines that name files, or what a Spec has a field for.
var fileOptions = []string{"kernel", "initrd", "append", "dtb", "dumpdtb", "shim", "firmware", "memory-backend", "accel"}

// checkMachine refuses a value of -machine that would make QEMU read or write files that the record does not have.
func checkMachine(value string) error {
	for i, option := range strings.Split(value, ",") {
		name, _, isOption := strings.Cut(option, "=")
		if i == 0 && !isOption {
			continue // the machine's name, which may also stand behind type=
		}
		if slices.Contains(fileOptions, name) || strings.HasPrefix(name, "boot.") {
			return fmt.Errorf("machine %q: guesthouse does not set the option %s: use the fields of the Spec, or QEMUArgs", value, name)
		}
	}
	return nil
}
