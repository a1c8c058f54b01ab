package harness

import (
	"context"
	"fmt"
	"time"

	"guesthouse.example/harness/internal/qemu"
)

// closingWithin bounds how long Save waits for connections that are about to close, in the
// machine's time.
const closingWithin = 5 * time.Second

// noConnections refuses a machine to or from which a TCP connection is open. It waits for
// those that are about to close.
func (v *vm) noConnections(ctx context.Context) error {
	ctx, cancel := v.within(ctx, closingWithin)
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

// connection fails where a TCP connection is open, and returns one that is about to close.
func (v *vm) connection(ctx context.Context) (closing string, err error) {
	var table string
	if err := v.qmp.ExecuteAll(ctx, usernet(&table)); err != nil {
		return "", err
	}
	open, closing := qemu.Connections(table)
	if open != "" {
		return "", fmt.Errorf("a connection is open: %s", open)
	}
	return closing, nil
}

// stopWithoutConnections stops the machine at a moment without TCP connections. Somebody may
// have opened one since noConnections; it closes only while the machine runs.
func (v *vm) stopWithoutConnections(ctx context.Context, r *resumption) error {
	for {
		r.stops = true
		if err := v.qmp.Execute(ctx, "stop", nil, nil); err != nil {
			return err
		}
		closing, err := v.connection(ctx)
		if err != nil || closing == "" {
			return err
		}
		if err := v.qmp.Execute(ctx, "cont", nil, nil); err != nil {
			return err
		}
		if err := v.noConnections(ctx); err != nil {
			return err
		}
	}
}
