package segment

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"guesthouse.example/harness/lan/internal/fate"
)

// inTime runs a function with two machines on a segment and a clock of its own.
func inTime(t *testing.T, f func(t *testing.T, a, b *machine)) {
	synctest.Test(t, func(t *testing.T) {
		s := New(1)
		a, b := plugIn(t, s, "a"), plugIn(t, s, "b")
		f(t, a, b)
		s.Close()
	})
}

func TestAFrameArrivesAfterItsDelay(t *testing.T) {
	inTime(t, func(t *testing.T, a, b *machine) {
		a.SetFaults(Up, fate.Params{Delay: 20 * time.Millisecond})
		sent := time.Now()
		a.Send(frame(2, 1))
		time.Sleep(20*time.Millisecond - 1)
		synctest.Wait()
		require.Empty(t, b.got)
		time.Sleep(time.Second)
		require.Len(t, b.got, 1)
		require.Equal(t, 20*time.Millisecond, b.at[0].Sub(sent))
	})
}

func TestJitterDoesNotReorder(t *testing.T) {
	inTime(t, func(t *testing.T, a, b *machine) {
		a.SetFaults(Up, fate.Params{Delay: 20 * time.Millisecond, Jitter: 20 * time.Millisecond})
		for i := range byte(200) {
			a.Send(frame(2, 1, i))
			time.Sleep(time.Millisecond)
		}
		time.Sleep(time.Second)
		require.Len(t, b.got, 200)
		for i, f := range b.got {
			require.EqualValues(t, i, f[headerSize])
		}
	})
}

// 125 bytes at 10 kbit/s take 100 ms.
func TestARateSpacesFrames(t *testing.T) {
	inTime(t, func(t *testing.T, a, b *machine) {
		a.SetFaults(Up, fate.Params{Rate: 10_000, Queue: 10 * 125})
		sent := time.Now()
		for range 20 {
			a.Send(frame(2, 1, make([]byte, 125-headerSize)...))
		}
		time.Sleep(time.Minute)
		require.Len(t, b.got, 10)
		for i, at := range b.at {
			require.InDelta(t, time.Duration(i+1)*100*time.Millisecond, at.Sub(sent), float64(time.Microsecond))
		}
		require.EqualValues(t, 10, a.Stats(Up).Overflowed)
		a.Send(frame(2, 1))
		time.Sleep(time.Minute)
		require.Len(t, b.got, 11, "the queue is empty again")
	})
}

func TestLaterFramesOvertakeAReorderedOne(t *testing.T) {
	inTime(t, func(t *testing.T, a, b *machine) {
		a.SetFaults(Up, fate.Params{Reorder: 1, ReorderFrames: 1})
		a.Send(frame(2, 1, 'x'))
		a.SetFaults(Up, fate.Params{})
		a.Send(frame(2, 1, 'y'))
		a.Send(frame(2, 1, 'z'))
		synctest.Wait()
		require.Equal(t, []string{string(frame(2, 1, 'y')), string(frame(2, 1, 'x')), string(frame(2, 1, 'z'))}, b.got)
		require.EqualValues(t, 1, a.Stats(Up).Reordered)
	})
}

func TestAReorderedFrameThatNoneFollowsArrives(t *testing.T) {
	inTime(t, func(t *testing.T, a, b *machine) {
		a.SetFaults(Up, fate.Params{Reorder: 1, ReorderFrames: 5, Delay: 10 * time.Millisecond, Jitter: 10 * time.Millisecond})
		for range 3 {
			a.Send(frame(2, 1))
		}
		time.Sleep(70 * time.Millisecond)
		synctest.Wait()
		require.Len(t, b.got, 3)
	})
}

func TestALinkThatIsDownLosesEverything(t *testing.T) {
	inTime(t, func(t *testing.T, a, b *machine) {
		a.SetFaults(Up, fate.Params{Delay: time.Second})
		a.Send(frame(2, 1, 'x')) // is on its way
		a.SetUp(false)
		a.Send(frame(2, 1, 'y'))
		b.Send(frame(255, 2))
		time.Sleep(time.Minute)
		require.Empty(t, b.got)
		require.Empty(t, a.got)
		a.SetUp(true)
		a.Send(frame(2, 1, 'z'))
		time.Sleep(time.Minute)
		require.Equal(t, []string{string(frame(2, 1, 'z'))}, b.got)
		require.EqualValues(t, 1, a.Stats(Up).Lost)
		require.EqualValues(t, 1, a.Stats(Down).Lost)
	})
}

func TestFramesAreDamagedLostAndDoubled(t *testing.T) {
	inTime(t, func(t *testing.T, a, b *machine) {
		original := frame(2, 1, make([]byte, 50)...)
		send := func(p fate.Params) (got []string) {
			b.got = nil
			a.SetFaults(Up, p)
			a.Send(original)
			synctest.Wait()
			return b.got
		}
		b.Send(frame(1, 2)) // so that a frame with a damaged destination is not flooded to b alone by chance
		require.Equal(t, []string{string(original), string(original)}, send(fate.Params{Duplicate: 1}))
		require.Empty(t, send(fate.Params{Loss: 1}))
		require.Empty(t, send(fate.Params{BurstLoss: 1}))
		require.Empty(t, send(fate.Params{MTU: len(original) - headerSize - tagSize - 1}))
		require.Equal(t, []string{string(original)}, send(fate.Params{MTU: len(original) - headerSize - tagSize}))
		require.Equal(t, original, frame(2, 1, make([]byte, 50)...), "the sender's frame stays as it was")
		s := a.Stats(Up)
		require.EqualValues(t, []uint64{5, 2, 1, 1}, []uint64{s.Frames, s.Lost, s.TooBig, s.Duplicated})
	})
}

func TestDamageIsOneBitOrTheEnd(t *testing.T) {
	var p pipe
	for i := range uint64(200) {
		f := fate.NewStream(1, "a", "up").Of(i, fate.Params{BitFlip: 1})
		damaged, words := p.damage(f, make([]byte, 60))
		ones := 0
		for _, b := range damaged {
			for ; b != 0; b &= b - 1 {
				ones++
			}
		}
		require.Equal(t, 1, ones)
		require.Len(t, words, 1)
		f = fate.NewStream(1, "a", "up").Of(i, fate.Params{Truncate: 1})
		damaged, _ = p.damage(f, make([]byte, 60))
		require.Less(t, len(damaged), 60)
		require.NotEmpty(t, damaged)
	}
}

func TestNothingArrivesAfterClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(1)
		a, b := plugIn(t, s, "a"), plugIn(t, s, "b")
		a.SetFaults(Up, fate.Params{Delay: time.Second})
		a.Send(frame(2, 1))
		s.Close()
		a.SetFaults(Up, fate.Params{})
		a.Send(frame(2, 1))
		late, _ := s.Link("late")
		late.Send(frame(2, 3))
		time.Sleep(time.Minute)
		require.Empty(t, b.got)
	})
}
