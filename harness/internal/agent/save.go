package agent

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"time"

	"guesthouse.example/harness/internal/guestfault"
	"guesthouse.example/harness/internal/until"
	"guesthouse.example/internal/wire"
)

// Saved is the state of the line to a quiesced guest, which a template keeps.
type Saved struct {
	Epoch  uint32   `json:"epoch"` // see package wire
	Events []string `json:"events,omitempty"`
	// Dropped counts the events before Events, which are not kept.
	Dropped int `json:"events_dropped,omitempty"`
}

// Saved returns the state of the line. The guest must be quiet.
func (c *Client) Saved() *Saved {
	c.mu.Lock()
	defer c.mu.Unlock()
	return &Saved{Epoch: c.wire.Epoch(), Events: slices.Clone(c.events.texts), Dropped: c.events.base}
}

// A Pause is the time in which the guest is quiet: from Quiesce until Reseed or Abandon. The client sends
// no other request during a pause.
type Pause struct {
	client  *Client
	request *request
	quiet   bool
}

// Quiesce asks the agent to stop all programs of the guest and to send nothing more, so that the line is
// empty when the machine is saved. It returns when the request is sent; Wait waits for the answer. It
// fails while commands run, because a restored machine's client could not receive their end. After an
// error there is no pause.
func (c *Client) Quiesce(ctx context.Context) (*Pause, error) {
	if err := c.takeTurn(ctx); err != nil {
		return nil, err
	}
	err := until.Take(ctx, c.line)
	if err == nil {
		c.quiet = true
		err = c.noCommands()
	}
	var r *request
	if err == nil {
		r, err = c.request(ctx, wire.Quiesce, nil)
	}
	if err != nil {
		c.endPause()
		return nil, err
	}
	return &Pause{client: c, request: r}, nil
}

// endPause frees the line and the turn.
func (c *Client) endPause() {
	if c.quiet {
		c.quiet = false
		<-c.line
	}
	c.endTurn()
}

// Wait waits until the guest is quiet. It may be called again after an error.
func (p *Pause) Wait(ctx context.Context) error {
	if !p.quiet {
		if _, err := p.client.await(ctx, p.request); err != nil {
			return err
		}
		p.quiet = true
	}
	return nil
}

// Abandon ends the pause of a guest that did not answer.
func (p *Pause) Abandon() { p.client.endPause() }

const (
	clockWithin = 50 * time.Millisecond // Reseed repeats its request while the guest's clock may be later,
	clockTries  = 4                     // up to this number of requests
	clockStep   = time.Second           // how far a program may set or slew the guest's clock during a request
)

// Reseed begins a new epoch with the agent of a guest that was saved, in this machine or in another. It
// waits until the guest has new entropy, the host's clock and a new boot identity, and ends the pause if
// there is one. If the network has cards, it is the guest's from then on. If resume is true, the guest's
// program then runs its functions for guest.OnRestore. Reseed returns how late the guest's clock is at most.
func (c *Client) Reseed(ctx context.Context, network wire.Network, resume bool) (late time.Duration, err error) {
	select {
	case c.turn <- struct{}{}:
		c.line <- struct{}{} // nobody else uses the line of a machine that is being restored
		c.quiet = true
	default: // the pause has the turn and the line
	}
	defer c.endPause()
	c.greeted()
	c.wire.Open(c.wire.Epoch() + 1)
	var boot wire.BootID
	rand.Read(boot[:])
	// The guest's clock is late by the time that the request takes to reach the guest.
	subscribed := false
	for range clockTries {
		if late, subscribed, err = c.reseed(ctx, boot, network); err != nil || late <= clockWithin {
			break
		}
	}
	if err == nil && resume && subscribed {
		_, err = c.askInTurn(ctx, wire.Resume, nil)
	}
	return late, err
}

// reseed sends one request. It returns how long the request took, and whether the guest's program
// has subscribed to Resume.
func (c *Client) reseed(ctx context.Context, boot wire.BootID, network wire.Network) (took time.Duration, subscribed bool, err error) {
	r := wire.Restore{Boot: boot, Entropy: make([]byte, 2*wire.MinEntropy), Network: network}
	rand.Read(r.Entropy)
	r.Now = time.Now()
	answer, err := c.askInTurn(ctx, wire.Restored, r.Encode())
	if err != nil {
		return 0, false, err
	}
	took = time.Since(r.Now)
	guest, err := wire.DecodeReseeded(answer)
	if err != nil {
		return 0, false, badAnswer(err)
	}
	if ran := guest.Clock.Sub(r.Now); ran < 0 || ran > took+clockStep {
		return 0, false, fmt.Errorf("%w: its clock was set to %v and says %v after %v",
			guestfault.ErrGuest, r.Now.UTC(), guest.Clock.UTC(), took)
	}
	return took, guest.Subscribed, nil
}
