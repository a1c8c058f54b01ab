package integration

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"guesthouse.example/harness/harnesstest"
)

// With the interface up, Debian's kernel 6.1.192 hung at about one power-off in 40.
func TestShutdownPowersOffUnderTraffic(t *testing.T) {
	t.Parallel()
	eachWordSize(t, func(t *testing.T, target string) {
		m := harnesstest.Boot(t, echoSpec(t, target))
		ctx, cancel := context.WithCancel(t.Context())
		var answers atomic.Int64
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
					switch _, err := conn.Read(buf); {
					case err == nil:
						answers.Add(1)
					case !errors.Is(err, os.ErrDeadlineExceeded):
						return
					}
				}
			})
		}
		// The agent powers the guest off even while the shell is busy.
		m.Expect(`uart:~\$ `)
		m.Send("sh echo $((1 + 1)) begun; sleep 1000")
		m.Expect(`2 begun`)
		before := answers.Load()
		require.Eventually(t, func() bool { return answers.Load() > before+20 }, harnesstest.Within, 10*time.Millisecond, "there is traffic")
		m.Shutdown()
		require.Equal(t, "the harness asked for it", m.Result().PowerOff)
	})
}

func TestShutdownTypesPoweroffToAGuestWithoutAnAgent(t *testing.T) {
	t.Parallel()
	spec := withoutAgent(t, oneTarget(t), "./guests/ends")
	spec.Dir = t.TempDir()
	m := harnesstest.Boot(t, spec)
	m.Shutdown()
	require.Empty(t, m.Result().PowerOff)
	log, err := os.ReadFile(filepath.Join(spec.Dir, "agent.log"))
	require.NoError(t, err)
	require.Contains(t, string(log), "harness: power-off by the power button and its console, because its agent could not: the guest has no agent")
}
