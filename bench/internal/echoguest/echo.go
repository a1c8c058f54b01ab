package echoguest

import (
	"context"
	"fmt"
	"net"
	"time"
)

// again is how long Wait waits for an answer over UDP before it sends another datagram, because
// the machine may have lost the first one.
const again = 20 * time.Millisecond

// Wait sends a byte and waits until it comes back. Over UDP, it sends the byte again and again.
func Wait(ctx context.Context, conn net.Conn) error {
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	_, stream := conn.LocalAddr().(*net.TCPAddr)
	for first := true; ; first = false {
		if first || !stream {
			if _, err := conn.Write([]byte("x")); err != nil && stream {
				return err
			}
		}
		if !stream {
			conn.SetReadDeadline(time.Now().Add(again))
		}
		n, err := conn.Read(make([]byte, 1))
		switch {
		case n == 1:
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case stream:
			return fmt.Errorf("first echo: %w", err)
		}
	}
}
