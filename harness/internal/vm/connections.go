package vm

import (
	"context"
	"fmt"
	"time"

	"guesthouse.example/harness/internal/qemu"
)

// closingWithin bounds, in the machine's time, how long Save waits for connections that are about to close.
const closingWithin = 5 * time.Second

// waitNoConnections waits until the guest has no TCP connection that is about to close. It fails if one
// is open.
func (v *VM) waitNoConnections(ctx context.Context) error {
	ctx, cancel := v.Within(ctx, closingWithin)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		closing, err := v.closingConnection(ctx)
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

// closingConnection returns a TCP connection that is about to close, or "". It fails if one is open.
func (v *VM) closingConnection(ctx context.Context) (closing string, err error) {
	var open string
	if v.onStreams() {
		if v.connections != nil {
			open, closing = v.connections()
		}
	} else {
		var table string
		if err := v.QMP.ExecuteAll(ctx, usernet(&table)); err != nil {
			return "", err
		}
		open, closing = qemu.Connections(table)
	}
	if open != "" {
		return "", fmt.Errorf("a connection is open: %s: close it before the machine is saved", open)
	}
	return closing, nil
}

// stopWithoutConnections stops the machine at a moment when it has no TCP connection. A client may have
// opened one since waitNoConnections returned. A connection can close only while the machine runs, so the
// machine then runs and is stopped again.
func (v *VM) stopWithoutConnections(ctx context.Context, r *resumption) error {
	for {
		r.stops = true
		if err := v.QMP.Execute(ctx, "stop", nil, nil); err != nil {
			return err
		}
		closing, err := v.closingConnection(ctx)
		if err != nil || closing == "" {
			return err
		}
		if err := v.QMP.Execute(ctx, "cont", nil, nil); err != nil {
			return err
		}
		if err := v.waitNoConnections(ctx); err != nil {
			return err
		}
	}
}
