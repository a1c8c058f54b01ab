package harness

import (
	"context"
	"fmt"
)

// SetLink unplugs the cable of the machine's network card (up is false) or plugs
// it in. While the cable is unplugged, all packets in both directions are lost,
// also those of Dial's connections, and the guest's card has no carrier. When the
// cable is plugged in, datagrams pass again after the guest has noticed the carrier,
// and TCP connections go on after their next retransmission. SetLink fails if the
// machine has ended or ctx ends first.
//
// Source: set_link in QEMU's QMP reference.
func (m *Machine) SetLink(ctx context.Context, up bool) error {
	// QEMU sets both ends of the cable if the name is that of the network's end.
	arguments := map[string]any{"name": "net0", "up": up}
	if err := m.vm.QMP.Execute(ctx, "set_link", arguments, nil); err != nil {
		return fmt.Errorf("set the link of %s: %w", m.plan.name(), err)
	}
	return nil
}
