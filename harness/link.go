package harness

import (
	"context"
	"fmt"
)

// SetLink cuts the cable of the machine's network card (up is false) or mends
// it. While it is cut every packet of both directions is lost, also those of
// Dial, and the guest sees its carrier go. Datagrams flow again soon after the
// cable is mended, when the guest has noticed; TCP connections go on after
// their next retransmission. Setting what is already so changes nothing. It
// fails when the machine has ended or ctx ends first.
//
// Source: set_link in QEMU's QMP reference.
func (m *Machine) SetLink(ctx context.Context, up bool) error {
	// By the name of the network's end, QEMU sets both ends of the cable.
	arguments := map[string]any{"name": "net0", "up": up}
	if err := m.qmp.Execute(ctx, "set_link", arguments, nil); err != nil {
		return fmt.Errorf("set the link of %s: %w", m.plan.spec.Target, err)
	}
	return nil
}
