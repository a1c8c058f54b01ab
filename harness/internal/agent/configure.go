package agent

import (
	"context"

	"guesthouse.example/internal/wire"
)

// Configure makes the guest configure its network cards. If the guest cannot, the error wraps
// guestfault.ErrGuest.
func (c *Client) Configure(ctx context.Context, n wire.Network) error {
	why, err := c.ask(ctx, wire.Configure, n.Encode())
	if err != nil {
		return err
	}
	return refused("configure the network", why)
}
