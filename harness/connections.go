package harness

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// closingWithin bounds how long Save waits for connections that are about to close, in the
// machine's time.
const closingWithin = 5 * time.Second

// closingStates are the states of a TCP connection between open and gone, and between
// nothing and open, as QEMU's user network sees the guest's end of it.
var closingStates = []string{"SYN_SENT", "SYN_RCVD", "FIN_WAIT_1", "FIN_WAIT_2", "CLOSE_WAIT", "CLOSING", "LAST_ACK", "CLOSED"}

// connections returns the line of a TCP connection that is open, and that of one that is
// about to close or not yet open; "" if there is none. What stands in TIME_WAIT is gone for
// both ends: QEMU keeps it for 10 s, for a packet that is late, and no template has it.
func connections(table string) (open, closing string) {
	for line := range strings.Lines(table) {
		// TCP[ESTABLISHED]  12  192.0.2.1  4242  127.0.0.1 43467  0 0
		line = strings.Join(strings.Fields(line), " ")
		state, isTCP := strings.CutPrefix(line, "TCP[")
		state, _, _ = strings.Cut(state, "]")
		switch {
		case !isTCP, state == "HOST_FORWARD", state == "TIME_WAIT":
		case slices.Contains(closingStates, state):
			closing = line
		default:
			open = line
		}
	}
	return open, closing
}

// noConnections refuses a machine to or from which a TCP connection is open. It waits for
// those that are about to close.
func (m *Machine) noConnections(ctx context.Context) error {
	ctx, cancel := m.Within(ctx, closingWithin)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		closing, err := m.connection(ctx)
		if err != nil || closing == "" {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("a connection is open: %s: %w", closing, context.Cause(ctx))
		}
	}
}

// connection fails where a TCP connection is open, and returns one that is about to close.
func (m *Machine) connection(ctx context.Context) (closing string, err error) {
	var table string
	if err := m.qmp.ExecuteAll(ctx, usernet(&table)); err != nil {
		return "", err
	}
	open, closing := connections(table)
	if open != "" {
		return "", fmt.Errorf("a connection is open: %s", open)
	}
	return closing, nil
}

// stopWithoutConnections stops the machine at a moment without TCP connections. Somebody may
// have opened one since noConnections; it closes only while the machine runs.
func (m *Machine) stopWithoutConnections(ctx context.Context, r *resumption) error {
	for {
		r.stops = true
		if err := m.qmp.Execute(ctx, "stop", nil, nil); err != nil {
			return err
		}
		closing, err := m.connection(ctx)
		if err != nil || closing == "" {
			return err
		}
		if err := m.qmp.Execute(ctx, "cont", nil, nil); err != nil {
			return err
		}
		if err := m.noConnections(ctx); err != nil {
			return err
		}
	}
}
