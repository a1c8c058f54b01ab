package machinetime

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// worksFor returns the clock of a machine that works for d and is idle from then on.
func worksFor(d time.Duration) *Clock {
	start := time.Now()
	return NewFake(func() Sample { return Sample{Ran: times{1: min(time.Since(start), d)}} })
}

func TestWaitIdleEndsWhenTheGuestHasFinishedItsWork(t *testing.T) {
	for works, want := range map[time.Duration]time.Duration{
		0:                      idleFor,
		300 * time.Millisecond: 300*time.Millisecond + idleFor,
		time.Hour:              idleWithin,
	} {
		synctest.Test(t, func(t *testing.T) {
			c, start := worksFor(works), time.Now()
			require.NoError(t, c.WaitIdle(t.Context()))
			require.Equal(t, want, time.Since(start))
		})
	}
}

func TestWaitIdleEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), idleWithin/2)
		defer cancel()
		require.ErrorIs(t, worksFor(time.Hour).WaitIdle(ctx), context.DeadlineExceeded)
	})
}
