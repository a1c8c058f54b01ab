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

// Each processor of a guest that sleeps has timer interrupts, and the work of a guest with many may move
// between them.
func TestIdlenessDependsOnTheNumberOfProcessors(t *testing.T) {
	for _, c := range []struct {
		cpus int
		used float64 // of one of the host's processors
		idle bool
	}{{0, 0.4, true}, {1, 0.4, true}, {1, 0.6, false}, {4, 0.4, true}, {4, 0.7, true}, {4, 0.9, false}, {8, 0.8, true}, {8, 1, false}, {32, 1, false}} {
		now := Moment{Machine: time.Second, CPU: time.Duration(c.used * float64(time.Second)), cpus: c.cpus}
		require.Equal(t, c.idle, now.idleSince(Moment{}), "%+v", c)
	}
}

func TestWaitIdleEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), idleWithin/2)
		defer cancel()
		require.ErrorIs(t, worksFor(time.Hour).WaitIdle(ctx), context.DeadlineExceeded)
	})
}
