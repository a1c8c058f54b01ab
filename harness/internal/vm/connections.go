package vm

import (
	"context"
	"fmt"
	"time"

	"guesthouse.example/harness/internal/qemu"
)

// closingWithin bounds, in the machine's time, how long Save waits for connections that are about to close.
const closingWithin = 5 * time.Second

// noConnections fails if a TCP connection to or from the guest is open. It waits for connections that are
// about to close.
func (v *VM) noConnections(ctx context.Context) error {
	ctx, cancel := v.Within(ctx, closingWithin)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		closing, err := v.connection(ctx)
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

// connection fails if a TCP connection is open, and returns one that is about to close.
func (v *VM) connection(ctx context.Context) (closing string, err error) {
	var table string
	if err := v.QMP.ExecuteAll(ctx, usernet(&table)); err != nil {
		return "", err
	}
	open, closing := qemu.Connections(table)
	if open != "" {
		return "", fmt.Errorf("a connection is open: %s", open)
	}
	return closing, nil
}

// stopWithoutConnections stops the machine at a moment without TCP connections. A client may have opened
// one since noConnections returned, which can close only while the machine runs.
func (v *VM) stopWithoutConnections(ctx context.Context, r *resumption) error {
	for {
		r.stops = true
		if err := v.QMP.Execute(ctx, "stop", nil, nil); err != nil {
			return err
		}
		closing, err := v.connection(ctx)
		if err != nil || closing == "" {
			return err
		}
		if err := v.QMP.Execute(ctx, "cont", nil, nil); err != nil {
			return err
		}
		if err := v.noConnections(ctx); err != nil {
			return err
		}
	}
}
