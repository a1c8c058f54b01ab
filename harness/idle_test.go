package harness

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// worksFor is the clock of a machine that works for that long and then has nothing to do.
func worksFor(d time.Duration) *clock {
	start := time.Now()
	wall := func() time.Duration { return time.Since(start) }
	return &clock{wall: wall, look: func() (sample, bool) { return sample{ran: waits{1: min(wall(), d)}}, true }}
}

func TestAGuestIsWaitedForUntilItIsIdle(t *testing.T) {
	for works, want := range map[time.Duration]time.Duration{
		0:                      idleFor,
		300 * time.Millisecond: 300*time.Millisecond + idleFor,
		time.Hour:              idleWithin, // and no longer
	} {
		synctest.Test(t, func(t *testing.T) {
			c, start := worksFor(works), time.Now()
			require.NoError(t, c.untilIdle(t.Context()))
			require.Equal(t, want, time.Since(start))
		})
	}
}

func TestWaitingForAnIdleGuestCanBeGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), idleWithin/2)
		defer cancel()
		require.ErrorIs(t, worksFor(time.Hour).untilIdle(ctx), context.DeadlineExceeded)
	})
}
