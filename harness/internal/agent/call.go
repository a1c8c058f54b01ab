package agent

import (
	"context"
	"errors"
	"fmt"

	"guesthouse.example/harness/internal/guestfault"
	"guesthouse.example/internal/printable"
	"guesthouse.example/internal/wire"
)

// A Call is a request that may take long, and beside which other requests may be under way.
type Call struct {
	client *Client
	number uint32
	answer chan wire.Message
}

// Begin sends a call. The caller calls Release.
func (c *Client) Begin(ctx context.Context, kind wire.Type, payload []byte) (*Call, error) {
	call := &Call{client: c, answer: make(chan wire.Message, 1)}
	err := c.sendInLine(ctx, wire.Message{Type: kind, Payload: payload}, func(number uint32) {
		call.number = number
		c.calls[number] = call
	})
	if err != nil {
		call.Release()
		if ended := c.Err(); ended != nil {
			return nil, ended
		}
		return nil, notReached(err)
	}
	return call, nil
}

// Release drops the answer if it has not come.
func (c *Call) Release() {
	c.client.mu.Lock()
	defer c.client.mu.Unlock()
	if c.client.calls[c.number] == c { // or the number is that of a call of a later conversation
		delete(c.client.calls, c.number)
	}
}

// Await waits for the answer. If the guest could not do what it was asked, the error wraps
// guestfault.ErrGuest and a *wire.GuestError. After another error Await may be called again.
func (c *Call) Await(ctx context.Context) ([]byte, error) {
	var m wire.Message
	select {
	case m = <-c.answer:
	case <-c.client.done:
		return nil, c.client.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	r, err := wire.DecodeResult(m.Payload)
	if err != nil {
		return nil, badAnswer(err)
	}
	if failure, ok := errors.AsType[*wire.GuestError](r.Err); ok {
		failure.Text = printable.Text(failure.Text)
		return nil, fmt.Errorf("%w: %w", guestfault.ErrGuest, failure)
	}
	return r.Data, nil
}
