package harness

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// QEMU would end with an error of its own, which does not say what would work, or take the rest of a value for
// another property of the device.
func TestANetworkCardThatTheMachineCannotHaveIsRefused(t *testing.T) {
	for want, c := range map[string]struct {
		machine string
		cards   []NIC
	}{
		"network card 0: name its model, such as e1000":                                                                                  {"q35", []NIC{{Slot: "2"}}},
		`network card 0: address "52:54": write six bytes`:                                                                               {"q35", []NIC{{Model: "e1000", MAC: "52:54"}}},
		`network card 0: model "e1000,romfile=/etc/passwd": write the name`:                                                              {"q35", []NIC{{Model: "e1000,romfile=/etc/passwd"}}},
		`network card 0: bus "pcie.0,addr=3": write the name`:                                                                            {"q35", []NIC{{Model: "e1000", Bus: "pcie.0,addr=3"}}},
		`network card 0: slot "2,romfile=x": write a hexadecimal number`:                                                                 {"q35", []NIC{{Model: "e1000", Slot: "2,romfile=x"}}},
		"network card 0: the machine q35 has no bus pci.0: its PCI bus is pcie.0":                                                        {"q35,smm=off", []NIC{{Model: "e1000", Bus: "pci.0"}}},
		"network card 0: the machine pc-i440fx-7.2 has no bus pcie.0: its PCI bus is pci.0":                                              {"pc-i440fx-7.2", []NIC{{Model: "e1000", Bus: "pcie.0"}}},
		"network card 0: the machine pc has no virtio-mmio bus for a virtio-net-device: use virtio-net-pci":                              {"pc", []NIC{{Model: "virtio-net-device"}}},
		"network card 0: slot 2: a virtio-mmio bus has no slots: name a bus":                                                             {"virt", []NIC{{Model: "virtio-net-device", Slot: "2"}}},
		"network card 0: the machine virt-7.2 has no virtio-mmio bus virtio-mmio-bus.32: it has virtio-mmio-bus.0 to virtio-mmio-bus.31": {"virt-7.2", []NIC{{Model: "virtio-net-device", Bus: "virtio-mmio-bus.32"}}},
		"2 network cards in NICs: the machine has 1, one for each network of Spec.Net, or else one":                                      {"q35", []NIC{{Model: "e1000"}, {Model: "e1000"}}},
	} {
		s := minimal(t)
		s.Machine, s.NICs = c.machine, c.cards
		require.ErrorContains(t, s.Validate(), want)
	}
	for machine, card := range map[string]NIC{
		"q35":       {Model: "e1000", Bus: "pcie.0", Slot: "1f.3"},
		"virt":      {Model: "virtio-net-device", Bus: "virtio-mmio-bus.31"},
		"none-such": {Model: "e1000", Bus: "bus"},
	} {
		s := minimal(t)
		s.Machine, s.NICs = machine, []NIC{card}
		require.NoError(t, s.Validate())
	}
	s := minimal(t)
	s.NICs, s.QEMUArgs = []NIC{{Model: "e1000", Bus: "port1"}}, []string{"-device", "pcie-root-port,id=port1"}
	require.NoError(t, s.Validate(), "arguments may add a bus")
}

// Each card of a machine on several networks is in a place of its own.
func TestEveryNetworkHasACard(t *testing.T) {
	s := minimal(t)
	s.Target, s.Board, s.Net = "", "zephyr/qemu_x86", []Network{nowhere{}, nowhere{}}
	cards := func() string {
		p, err := s.plan()
		require.NoError(t, err)
		return strings.Join(p.qemu.IdentityArgs(), " ")
	}
	require.Contains(t, cards(), "-device e1000,addr=2,romfile=,netdev=net0 ")
	require.Contains(t, cards(), "-device e1000,addr=3,romfile=,netdev=net1 ")
	s.NICs = []NIC{{Model: "e1000", Slot: "5"}, {Model: "pcnet", Slot: "6"}}
	require.Contains(t, cards(), "-device e1000,addr=5,romfile=,netdev=net0 ")
	require.Contains(t, cards(), "-device pcnet,addr=6,romfile=,netdev=net1 ")

	s.NICs[1].Slot = "0x5"
	require.EqualError(t, s.Validate(), "network card 1: another card is in the same place, the default bus 0x5")
	s.NICs[1] = NIC{Model: "pcnet", MAC: "52:54:00:12:34:56"}
	require.EqualError(t, s.Validate(), "network card 1: address 52:54:00:12:34:56: the networks of Spec.Net choose the addresses")
	s.NICs = []NIC{{Model: "e1000", Slot: "3"}}
	require.EqualError(t, s.Validate(), "network card 1: another card is in the same place, the default bus 3", "the board's second card")
	s.NICs, s.Net = nil, append(s.Net, nowhere{})
	require.EqualError(t, s.Validate(), "board zephyr/qemu_x86: 3 network cards: it has slots for 2")
}

// A board of the user's own is checked as the cards of a Spec are.
func TestABoardsCardIsOnABusOfItsMachine(t *testing.T) {
	s := minimal(t)
	s.Target, s.Board = "", "acme/widget"
	s.CustomBoard = &CustomBoard{Name: "acme/widget", Target: "x86", Machine: "q35", CPU: "qemu32", Memory: 32, Card: "virtio-net-device", Load: "kernel", Ready: "ready"}
	require.EqualError(t, s.Validate(), "network card 0: the machine q35 has no virtio-mmio bus for a virtio-net-device: use virtio-net-pci")
}

// nowhere is a network that no machine is on.
type nowhere struct{ Network }

func TestALoadersFileMayHaveAnyName(t *testing.T) {
	s := minimal(t)
	s.Loaders = []Loader{{File: "/a,b", Addr: 0x200000}, {File: "nothing"}}
	_, err := s.Command()
	require.ErrorContains(t, err, "loader: stat /a,b: no such file")
	s.Loaders[0].File, s.Loaders[1].File = s.Kernel, s.Kernel
	args, err := s.Command()
	require.NoError(t, err)
	require.Contains(t, strings.Join(args, " "), " -device loader,file="+s.Kernel+",addr=0x200000 -device loader,file="+s.Kernel+" ")
	p, err := s.check()
	require.NoError(t, err)
	p.qemu.Loaders[0].File = "a,b"
	require.Contains(t, strings.Join(p.qemu.TerminalArgs(), " "), " -device loader,file=a,,b,addr=0x200000 ")
	require.NotContains(t, strings.Join(p.qemu.IdentityArgs(), " "), s.Kernel, "the identity has the file's hash instead")
}

// The second part of an image lies beside the first.
func TestABoardLoadsTheFilesBesideItsImage(t *testing.T) {
	s := minimal(t)
	s.Target, s.Board = "", "zephyr/qemu_x86_64"
	_, err := s.Command()
	require.ErrorContains(t, err, "zephyr-qemu-main.elf: no such file")
}
