package machinetime

import (
	"context"
	"fmt"
	"time"

	"guesthouse.example/harness/internal/guestfault"
)

// Signs are what a watchdog sees of a guest.
type Signs struct {
	Printed func() int64 // the bytes that the guest has printed

	// Registers returns the registers of the guest's processors as text, or "" if they are unknown. It may be nil.
	Registers func(context.Context) string
}

// WithWatchdog returns a context that ends when the guest hangs: for d of the machine's time it printed nothing, and
// either was mostly idle or spun, which means that its registers had few different states. The watchdog detects this
// at most 2*d after the last byte. The cause then wraps guestfault.ErrGuest and cause.
//
// A guest that computes in silence does not hang: a loop that gets on changes a register, such as a counter or a
// pointer, in each turn. Without the kernel's statistics the watchdog never ends the context.
func (c *Clock) WithWatchdog(ctx context.Context, d time.Duration, signs Signs, cause error) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		tick := time.NewTicker(Tick)
		defer tick.Stop()
		from, before := c.Now(), signs.Printed()
		var seen states
		for {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
			now, length := c.Now(), signs.Printed()
			hangs := func(how string) {
				cancel(fmt.Errorf("%w: it hangs: it printed nothing and %s for %v: %w", guestfault.ErrGuest, how, d, cause))
			}
			silent := now.Machine - from.Machine
			if length == before && signs.Registers != nil && silent >= time.Duration(seen.samples+1)*d/(looks+1) {
				seen.add(signs.Registers(ctx))
			}
			switch {
			case length != before:
				from, before, seen = now, length, states{}
			case silent < d:
			case now.CPU > 0 && now.idleSince(from):
				hangs("was mostly idle")
				return
			case now.CPU > 0 && seen.repeat():
				hangs("spun, its registers repeating,")
				return
			default:
				from, seen = now, states{}
			}
		}
	}()
	return ctx, func() { cancel(context.Canceled) }
}

// looks is how often the watchdog reads the registers of a guest that prints nothing for d.
const looks = 16

// states counts the different registers that a watchdog has read.
type states struct {
	count   map[string]int
	samples int
}

func (s *states) add(registers string) {
	s.samples++
	if registers == "" {
		return
	}
	if s.count == nil {
		s.count = make(map[string]int)
	}
	s.count[registers]++
}

// repeat reports whether the guest spins: at least three quarters of all readings were seen more than once. The rest
// may be of interrupts that the guest serves meanwhile.
func (s *states) repeat() bool {
	again := 0
	for _, n := range s.count {
		if n > 1 {
			again += n
		}
	}
	return s.samples >= looks/2 && again*4 >= s.samples*3
}
