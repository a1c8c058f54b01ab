package agent

import (
	"context"

	"guesthouse.example/internal/wire"
)

// Mount makes the guest mount directories of the host, in this order. The caller serves their channels. If
// the guest cannot mount one, the error wraps guestfault.ErrGuest.
func (c *Client) Mount(ctx context.Context, shares []wire.Share) error {
	payload, err := wire.EncodeShares(shares)
	if err != nil {
		return err
	}
	why, err := c.ask(ctx, wire.Mount, payload)
	if err != nil {
		return err
	}
	return refused("mount directories of the host", why)
}
