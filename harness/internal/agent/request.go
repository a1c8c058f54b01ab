package agent

import (
	"context"
	"fmt"

	"guesthouse.example/harness/internal/guestfault"
	"guesthouse.example/harness/internal/until"
	"guesthouse.example/internal/wire"
)

// A request waits for its answer.
type request struct {
	kind     wire.Type
	sequence uint32
	answer   chan wire.Message
}

// Stats asks for the statistics of the guest and of its socket services.
func (c *Client) Stats(ctx context.Context) (wire.Stats, error) {
	answer, err := c.ask(ctx, wire.Statistics, nil)
	if err != nil {
		return wire.Stats{}, err
	}
	s, err := wire.DecodeStats(answer)
	if err != nil {
		return wire.Stats{}, badAnswer(err)
	}
	return s, nil
}

// Coverage asks the guest for its coverage data. The function of OnCovered has got all of it when Coverage
// returns.
func (c *Client) Coverage(ctx context.Context) error {
	_, err := c.ask(ctx, wire.Coverage, nil)
	return err
}

// PowerOff asks the agent to end the guest's program and to power the machine off. The agent does
// not answer: the end of the machine is the answer.
func (c *Client) PowerOff(ctx context.Context) error {
	if err := c.takeTurn(ctx); err != nil {
		return err
	}
	defer c.endTurn()
	return c.send(ctx, wire.Message{Type: wire.PowerOff}, nil)
}

// WarmUp asks the agent to echo datagrams on a UDP port until the guest is quiesced or reseeded, and
// returns the port. The port is 0 if the guest has no network.
func (c *Client) WarmUp(ctx context.Context) (port int, err error) {
	answer, err := c.ask(ctx, wire.WarmUp, nil)
	if err != nil {
		return 0, err
	}
	port, err = wire.DecodePort(answer)
	if err != nil {
		return 0, badAnswer(err)
	}
	return port, nil
}

func badAnswer(err error) error { return fmt.Errorf("%w: its agent: %w", guestfault.ErrGuest, err) }

// takeTurn waits until no other request is under way. It fails if ctx has ended, even if the turn is free.
func (c *Client) takeTurn(ctx context.Context) error { return until.Take(ctx, c.turn) }

func (c *Client) endTurn() { <-c.turn }

// ask takes its turn, sends a request and waits for the answer.
func (c *Client) ask(ctx context.Context, kind wire.Type, payload []byte) ([]byte, error) {
	if err := c.takeTurn(ctx); err != nil {
		return nil, err
	}
	defer c.endTurn()
	return c.askInTurn(ctx, kind, payload)
}

// askInTurn is ask for a caller that has the turn.
func (c *Client) askInTurn(ctx context.Context, kind wire.Type, payload []byte) ([]byte, error) {
	r, err := c.request(ctx, kind, payload)
	if err != nil {
		return nil, err
	}
	answer, err := c.await(ctx, r)
	if err != nil {
		c.forget()
	}
	return answer, err
}

// request sends a request, whose answer the caller awaits. The caller has the turn.
func (c *Client) request(ctx context.Context, kind wire.Type, payload []byte) (*request, error) {
	r := &request{kind: kind, answer: make(chan wire.Message, 1)}
	err := c.send(ctx, wire.Message{Type: kind, Payload: payload}, r)
	select {
	case <-c.done:
		return nil, c.err
	default:
	}
	if err != nil {
		c.forget()
		return nil, notReached(err)
	}
	return r, nil
}

func notReached(err error) error { return fmt.Errorf("the guest's agent is not reached: %w", err) }

// await waits for the answer to a request.
func (c *Client) await(ctx context.Context, r *request) ([]byte, error) {
	select {
	case m := <-r.answer:
		return m.Payload, nil
	case <-c.done:
		return nil, c.err
	case <-ctx.Done():
		return nil, fmt.Errorf("%s: no answer of the guest's agent: %w", r.kind, context.Cause(ctx))
	}
}

// forget makes receive drop the answer to the pending request.
func (c *Client) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pending = nil
}

// send sends a message. The answer goes to r unless r is nil. If the guest does not read, send waits
// until ctx ends. The caller has the turn.
func (c *Client) send(ctx context.Context, m wire.Message, r *request) error {
	register := func(number uint32) {
		if r != nil {
			r.sequence = number
			c.pending = r
		}
	}
	if c.quiet { // the pause has the line
		return c.write(ctx, m, register)
	}
	return c.sendInLine(ctx, m, register)
}

// sendInLine sends a message when the line is free. It calls register with the message's number and with
// c.mu held, before it sends the message: the guest's answer may arrive before sendInLine returns.
func (c *Client) sendInLine(ctx context.Context, m wire.Message, register func(number uint32)) error {
	if err := until.Take(ctx, c.line); err != nil {
		return err
	}
	defer func() { <-c.line }()
	return c.write(ctx, m, register)
}

// write is sendInLine for a caller that has the line.
func (c *Client) write(ctx context.Context, m wire.Message, register func(number uint32)) error {
	c.logMessage("harness", m)
	c.mu.Lock()
	register(c.wire.Next())
	c.mu.Unlock()
	c.frames.ctx = ctx
	_, err := c.wire.Send(m)
	return err
}
