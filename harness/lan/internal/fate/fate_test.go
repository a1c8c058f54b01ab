package fate

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

var all = Params{
	Loss: 0.1, BurstLoss: 0.02, BurstLength: 5, Duplicate: 0.1, Reorder: 0.1, ReorderFrames: 3, BitFlip: 0.1, Truncate: 0.1,
	Delay: 10 * time.Millisecond, Jitter: 4 * time.Millisecond,
}

// The fates of a seed are the same in every version: a seed that a failed test printed must still repeat it.
func TestTheFatesOfASeedNeverChange(t *testing.T) {
	s := NewStream(7, "server", "up")
	var text string
	for i := range uint64(24) {
		f := s.Of(i, all)
		switch {
		case f.Burst:
			text += "B"
		case f.Lost:
			text += "L"
		case f.Copies > 0:
			text += "D"
		case f.Overtake > 0:
			text += fmt.Sprint(f.Overtake)
		case f.Flip(1000) >= 0:
			text += "F"
		case f.Cut(1000) < 1000:
			text += "T"
		default:
			text += "."
		}
	}
	require.Equal(t, golden, text)
	require.Equal(t, goldenDelay, s.Of(0, all).Delay)
}

func TestAFateDependsOnNothingButItsArguments(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		seed, frame := rapid.Uint64().Draw(t, "seed"), rapid.Uint64().Draw(t, "frame")
		link := rapid.StringMatching(`[a-z]{1,8}`).Draw(t, "link")
		want := NewStream(seed, link, "up").Of(frame, all)
		other := NewStream(seed, link, "up")
		for range rapid.IntRange(0, 20).Draw(t, "others") {
			other.Of(rapid.Uint64().Draw(t, "other"), all)
		}
		require.Equal(t, want, other.Of(frame, all))
	})
}

// One fault's probability does not change the fates of another.
func TestFaultsAreIndependent(t *testing.T) {
	s := NewStream(1, "a", "down")
	for i := range uint64(1000) {
		alone, with := s.Of(i, Params{Loss: 0.3}), s.Of(i, Params{Loss: 0.3, Duplicate: 0.5, Reorder: 0.5, Jitter: time.Second})
		require.Equal(t, alone.Lost, with.Lost)
	}
}

func TestLinksAndDirectionsHaveFatesOfTheirOwn(t *testing.T) {
	lost := func(s Stream) (text string) {
		for i := range uint64(64) {
			text += fmt.Sprint(s.Of(i, Params{Loss: 0.5}).Lost)[:1]
		}
		return text
	}
	seen := make(map[string]string)
	for _, seed := range []uint64{0, 1, 2} {
		for _, link := range []string{"a", "b", "ab"} {
			for _, direction := range []string{"up", "down"} {
				name := fmt.Sprint(seed, link, direction)
				text := lost(NewStream(seed, link, direction))
				require.Empty(t, seen[text], "%s has the fates of %s", name, seen[text])
				seen[text] = name
			}
		}
	}
}

// The seeds are fixed, so the counts are too.
func TestFaultsAreAsFrequentAsAskedFor(t *testing.T) {
	const frames = 100_000
	count := func(p Params, is func(Fate) bool) (n int) {
		s := NewStream(42, "a", "up")
		for i := range uint64(frames) {
			if is(s.Of(i, p)) {
				n++
			}
		}
		return n
	}
	lost := func(f Fate) bool { return f.Lost }
	require.Zero(t, count(Params{}, func(f Fate) bool { return !f.Harmless() }))
	require.Equal(t, frames, count(Params{Loss: 1}, lost))
	require.InEpsilon(t, 0.05*frames, count(Params{Loss: 0.05}, lost), 0.05)
	require.InEpsilon(t, 0.3*frames, count(Params{Duplicate: 0.3}, func(f Fate) bool { return f.Copies == 1 }), 0.05)
	require.InEpsilon(t, 0.2*frames, count(Params{Reorder: 0.2, ReorderFrames: 3}, func(f Fate) bool { return f.Overtake > 0 }), 0.05)
	require.InEpsilon(t, 0.1*frames, count(Params{BitFlip: 0.1}, func(f Fate) bool { return f.Flip(64) >= 0 }), 0.05)
	// A burst begins at one frame in 100 and loses 2 to 3 frames on average; bursts rarely meet.
	require.InEpsilon(t, 0.025*frames, count(Params{BurstLoss: 0.01, BurstLength: 4}, lost), 0.1)
}

func TestBurstsLoseFramesInARow(t *testing.T) {
	s := NewStream(3, "a", "up")
	p := Params{BurstLoss: 0.01, BurstLength: 8}
	runs, longest, run := 0, 0, 0
	for i := range uint64(20_000) {
		if s.Of(i, p).Lost {
			if run++; run == 2 {
				runs++
			}
			longest = max(longest, run)
		} else {
			run = 0
		}
	}
	require.Greater(t, runs, 100)
	require.GreaterOrEqual(t, longest, 8)
}

func TestDelaysAreWithinTheJitter(t *testing.T) {
	s := NewStream(3, "a", "up")
	least, most := time.Hour, time.Duration(0)
	for i := range uint64(10_000) {
		d := s.Of(i, Params{Delay: 20 * time.Millisecond, Jitter: 5 * time.Millisecond}).Delay
		least, most = min(least, d), max(most, d)
		require.GreaterOrEqual(t, s.Of(i, Params{Delay: time.Millisecond, Jitter: time.Second}).Delay, time.Duration(0))
	}
	require.InDelta(t, 15*time.Millisecond, least, float64(10*time.Microsecond))
	require.InDelta(t, 25*time.Millisecond, most, float64(10*time.Microsecond))
}

func TestFlipsAndCutsAreInsideTheFrame(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.IntRange(0, 2000).Draw(t, "size")
		f := NewStream(rapid.Uint64().Draw(t, "seed"), "a", "up").Of(rapid.Uint64().Draw(t, "frame"), Params{BitFlip: 1, Truncate: 1})
		require.Less(t, f.Flip(size), max(8*size, 0))
		require.LessOrEqual(t, f.Cut(size), size)
		if size > 0 {
			require.GreaterOrEqual(t, f.Flip(size), 0)
			require.GreaterOrEqual(t, f.Cut(size), 1)
		}
	})
}

const (
	golden      = ".T..BBB........2......D."
	goldenDelay = 6268557 * time.Nanosecond
)
