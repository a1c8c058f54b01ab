package harness

import (
	"context"
	"fmt"
	"net"

	"guesthouse.example/harness/internal/until"
)

// An agentLine is the line to the guest's agent, which carries whole frames. A guest that
// does not read holds a write up until the sender's context ends. Of a frame that has begun
// by then the rest is sent when the guest reads again, before any other.
type agentLine struct {
	net.Conn
	ctx  context.Context // of the frame that is sent; set by whoever has the turn to ask
	turn chan struct{}   // holds a token while a frame is under way
}

// Write sends a frame. After an error nothing of it was sent, or the line has ended.
func (l *agentLine) Write(frame []byte) (int, error) {
	select {
	case l.turn <- struct{}{}:
	case <-l.ctx.Done():
		return 0, fmt.Errorf("the guest does not read: %w", context.Cause(l.ctx))
	}
	n, err := until.Write(l.ctx, l.Conn, frame)
	if n > 0 && err != nil && l.ctx.Err() != nil {
		go func() {
			defer func() { <-l.turn }()
			l.Conn.Write(frame[n:]) // an error is the end, of which the reader tells
		}()
		return len(frame), nil
	}
	<-l.turn
	return n, err
}
