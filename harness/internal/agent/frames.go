package agent

import (
	"bytes"
	"context"
	"fmt"
	"net"

	"guesthouse.example/harness/internal/until"
)

// A frameWriter writes complete frames to a guest that may not read. A write ends when the context of
// its sender ends. If a part of the frame was written by then, the rest is written when the guest reads
// again, and the next frame waits for the rest.
type frameWriter struct {
	net.Conn
	ctx  context.Context // of the sender; set by the holder of Client.line
	busy chan struct{}   // holds a token while a frame is under way
}

// Write writes a frame. After an error no byte of the frame was written, or the line has ended.
func (w *frameWriter) Write(frame []byte) (int, error) {
	select {
	case w.busy <- struct{}{}:
	case <-w.ctx.Done():
		return 0, fmt.Errorf("the guest does not read: %w", context.Cause(w.ctx))
	}
	n, err := until.Write(w.ctx, w.Conn, frame)
	if n > 0 && err != nil && w.ctx.Err() != nil {
		rest := bytes.Clone(frame[n:]) // the caller reuses the frame's memory
		go func() {
			defer func() { <-w.busy }()
			w.Conn.Write(rest) // Listen reports a line that has ended
		}()
		return len(frame), nil
	}
	<-w.busy
	return n, err
}
