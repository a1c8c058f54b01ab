package integration

import (
	"context"
	"errors"
	"os"
	"sync"
	"testing"
	"time"

	"guesthouse.example/harness/harnesstest"
)

// With the interface up at power-off Debian's 6.1.192 hung in about one of 40.
func TestThePowerGoesOffUnderTraffic(t *testing.T) {
	harnesstest.EachTarget(t, func(t *testing.T, target string) {
		m := harnesstest.Boot(t, echoSpec(t, target))
		ctx, cancel := context.WithCancel(t.Context())
		var senders sync.WaitGroup
		defer senders.Wait()
		defer cancel()
		for range 4 {
			conn := m.Dial("udp", echoPort)
			echoes(t, conn, "before")
			senders.Go(func() {
				buf := make([]byte, 1500)
				for ctx.Err() == nil {
					if _, err := conn.Write(buf[:1400]); err != nil {
						return
					}
					conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
					if _, err := conn.Read(buf); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
						return
					}
				}
			})
		}
		m.Shutdown()
	})
}
