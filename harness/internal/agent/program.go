package agent

import (
	"context"
	"fmt"

	"guesthouse.example/harness/internal/guestfault"
	"guesthouse.example/internal/printable"
	"guesthouse.example/internal/wire"
)

// Run makes init start the guest program of a platform, /bin/uinit. It returns when the program runs,
// or with an error that wraps guestfault.ErrGuest if it could not be started. The platform then waits
// for another Run. When the program has ended, Exit returns how, and the machine powers off.
func (c *Client) Run(ctx context.Context, p wire.Program) error {
	payload, err := p.Encode()
	if err != nil {
		return err
	}
	why, err := c.ask(ctx, wire.Run, payload)
	if err != nil {
		return err
	}
	return refused("start the guest program", why)
}

// refused returns the error for the guest's reason why it did not do what it was asked, or nil if it
// has given none.
func refused(what string, why []byte) error {
	if len(why) == 0 {
		return nil
	}
	return fmt.Errorf("%w: %s: %s", guestfault.ErrGuest, what, printable.Text(string(why)))
}
