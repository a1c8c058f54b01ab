package segment

import (
	"encoding/binary"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"guesthouse.example/harness/lan/internal/fate"
)

// frame returns a frame between the machines with two numbers. Machine 255 is all machines.
func frame(to, from byte, payload ...byte) []byte {
	f := []byte{2, 0, 0, 0, 0, to, 2, 0, 0, 0, 0, from, 0x88, 0xb5}
	if to == 255 {
		copy(f, []byte{255, 255, 255, 255, 255, 255})
	}
	return append(f, payload...)
}

// A machine collects what arrives at the far end of its link.
type machine struct {
	*Link
	got    []string
	calls  int // by which the frames arrived
	at     []time.Time
	events []string
}

func plugIn(t require.TestingT, s *Segment, name string) *machine {
	l, _ := s.Link(name)
	m := &machine{Link: l}
	_, err := l.Plug(func(frames [][]byte) {
		m.calls++
		for _, f := range frames {
			m.got = append(m.got, string(f))
			m.at = append(m.at, time.Now())
		}
	}, func(e Event) {
		m.events = append(m.events, fmt.Sprintf("%v %d %x %s", e.Direction, e.Number, e.Frame, e.Fate))
	})
	require.NoError(t, err)
	return m
}

// The model of a switch: a frame goes to the link behind which its destination was last seen, or to all.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const machines = 4
		s := New(1)
		var all []*machine
		for i := range machines {
			all = append(all, plugIn(t, s, string(rune('a'+i))))
		}
		seen, cut := make(map[byte]int), make(map[[2]int]bool)
		want := make([][]string, machines)
		index := rapid.IntRange(0, machines-1)
		t.Repeat(map[string]func(*rapid.T){
			"send": func(t *rapid.T) {
				i := index.Draw(t, "link")
				to, from := rapid.SampledFrom([]byte{1, 2, 3, 4, 5, 255}).Draw(t, "to"), rapid.SampledFrom([]byte{1, 2, 3, 4}).Draw(t, "from")
				f := frame(to, from, rapid.Byte().Draw(t, "payload"))
				all[i].Send(f)
				seen[from] = i
				for j := range machines {
					only, known := seen[to]
					if j == i || cut[[2]int{min(i, j), max(i, j)}] || (known && only != j) {
						continue
					}
					want[j] = append(want[j], string(f))
				}
			},
			"cut": func(t *rapid.T) {
				i, j := index.Draw(t, "a"), index.Draw(t, "b")
				s.Cut(all[i].name, all[j].name)
				cut[[2]int{min(i, j), max(i, j)}] = true
			},
			"mend": func(*rapid.T) {
				s.Mend()
				clear(cut)
			},
			"": func(t *rapid.T) {
				for i, m := range all {
					require.Equal(t, want[i], m.got, "link %s", m.name)
				}
			},
		})
	})
}

func TestFramesThatNoCardSendsAreDropped(t *testing.T) {
	s := New(1)
	a, b := plugIn(t, s, "a"), plugIn(t, s, "b")
	a.Send(frame(2, 1)[:headerSize-1])
	a.Send(nil)
	from := frame(2, 1)
	from[6] |= 1 // a group address
	a.Send(from)
	require.Empty(t, b.got)
	a.Send(frame(2, 1))
	require.Len(t, b.got, 1)
}

// A guest that sends from any number of addresses fills the table, and the switch goes on.
func TestTheTableIsBounded(t *testing.T) {
	s := New(1)
	a, b := plugIn(t, s, "a"), plugIn(t, s, "b")
	b.Send(frame(1, 2))
	f := frame(2, 1)
	for i := range uint32(2 * maxAddresses) {
		binary.BigEndian.PutUint32(f[8:], 1<<24+i)
		a.Send(f)
	}
	require.LessOrEqual(t, len(s.table), maxAddresses)
	require.Len(t, b.got, 2*maxAddresses)
}

func TestAMachineThatLeavesIsForgotten(t *testing.T) {
	s := New(1)
	a := plugIn(t, s, "a")
	l, made := s.Link("b")
	require.True(t, made)
	unplug, err := l.Plug(func([][]byte) {}, nil)
	require.NoError(t, err)
	_, err = l.Plug(func([][]byte) {}, nil)
	require.ErrorIs(t, err, ErrPlugged)
	l.Send(frame(1, 2))
	unplug()
	unplug()
	l.Send(frame(1, 2))
	a.Send(frame(2, 1))
	require.NotContains(t, s.table, address{2, 0, 0, 0, 0, 2})
	require.Zero(t, l.Stats(Down).Frames)
	again := plugIn(t, s, "b")
	a.Send(frame(2, 1))
	require.Len(t, again.got, 1)
}

// Frames that are sent together arrive together, but each goes to its own destination and keeps its place.
func TestFramesSentTogetherArriveTogether(t *testing.T) {
	s := New(1)
	a, b, c := plugIn(t, s, "a"), plugIn(t, s, "b"), plugIn(t, s, "c")
	b.Send(frame(1, 2))
	c.Send(frame(1, 3))
	a.calls = 0
	a.Send(frame(2, 1, 'p'), frame(2, 1, 'q'), nil, frame(2, 1)[:headerSize-1], frame(3, 1, 'r'), frame(2, 1, 's'), frame(255, 1, 't'))
	require.Equal(t, []string{string(frame(2, 1, 'p')), string(frame(2, 1, 'q')), string(frame(2, 1, 's')), string(frame(255, 1, 't'))}, b.got[1:])
	require.Equal(t, 4, b.calls, "one for what c sent, and three for the runs of frames with the same addresses")
	require.Equal(t, []string{string(frame(3, 1, 'r')), string(frame(255, 1, 't'))}, c.got[1:])
	require.Zero(t, a.calls)
}

// A machine may answer a frame while it receives it, and get an answer to that.
func TestFramesMayBeAnsweredAtOnce(t *testing.T) {
	s := New(1)
	a, _ := s.Link("a")
	b, _ := s.Link("b")
	var log []byte
	answer := func(l *Link, from byte) func([][]byte) {
		return func(frames [][]byte) {
			f := frames[0]
			log = append(log, f[headerSize])
			if f[headerSize] < 200 {
				l.Send(frame(3-from, from, f[headerSize]+1))
			}
		}
	}
	_, err := a.Plug(answer(a, 1), nil)
	require.NoError(t, err)
	_, err = b.Plug(answer(b, 2), nil)
	require.NoError(t, err)
	a.Send(frame(2, 1, 0))
	require.Len(t, log, 201)
	require.True(t, slices.IsSorted(log))
}

// A machine that does not take its frames delays no other machine, and the queue before it is bounded.
func TestAMachineThatIsStuckHoldsUpNobody(t *testing.T) {
	s := New(1)
	a, c := plugIn(t, s, "a"), plugIn(t, s, "c")
	b, _ := s.Link("b")
	stuck, entered := make(chan struct{}), make(chan struct{})
	first := true
	_, err := b.Plug(func([][]byte) {
		if first {
			first = false
			close(entered)
			<-stuck
		}
	}, nil)
	require.NoError(t, err)
	b.Send(frame(1, 2))
	d, _ := s.Link("d")
	done := make(chan struct{})
	go func() {
		defer close(done)
		d.Send(frame(2, 4)) // which is stuck in b
	}()
	<-entered
	big := make([]byte, 1400)
	for range 2 * maxWaiting / len(big) {
		a.Send(frame(2, 1, big...))
	}
	require.NotZero(t, b.Stats(Down).Overflowed)
	b.down.mu.Lock()
	require.LessOrEqual(t, b.down.waiting, maxWaiting)
	b.down.mu.Unlock()
	c.Send(frame(1, 3))
	require.Len(t, a.got, 2)
	close(stuck)
	<-done
}

// run sends the same frames through a segment with all faults, and returns everything that can be seen. Some frames are
// sent together.
func run(t *testing.T, seed uint64, together int) (events, got []string) {
	synctest.Test(t, func(t *testing.T) {
		s := New(seed)
		a, b := plugIn(t, s, "a"), plugIn(t, s, "b")
		p := fate.Params{Loss: 0.1, BurstLoss: 0.02, BurstLength: 3, Duplicate: 0.1, Reorder: 0.1, ReorderFrames: 3, BitFlip: 0.1, Truncate: 0.1,
			Delay: 20 * time.Millisecond, Jitter: 5 * time.Millisecond, MTU: 100}
		a.SetFaults(Up, p)
		b.SetFaults(Down, p)
		for i := 0; i < 500; i += 5 {
			var frames [][]byte
			for j := range 5 {
				frames = append(frames, frame(2, 1, make([]byte, (i+j)%120)...))
			}
			for some := range slices.Chunk(frames, together) {
				a.Send(some...)
			}
			time.Sleep(5 * time.Millisecond)
		}
		time.Sleep(time.Second)
		events, got = append(a.events, b.events...), b.got
		s.Close()
	})
	return events, got
}

func TestTheSameSeedGivesTheSameFates(t *testing.T) {
	events, got := run(t, 7, 1)
	for _, together := range []int{1, 2, 5} {
		again, gotAgain := run(t, 7, together)
		require.Equal(t, events, again)
		require.Equal(t, got, gotAgain)
	}
	other, _ := run(t, 8, 1)
	require.NotEqual(t, events, other)
}
