package wire

import (
	"bytes"
	"io"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// A lane is one stream from its sender to its receiver.
type lane struct {
	allowance *Allowance
	inbox     *Inbox
}

// newLane returns a lane whose credit arrives at once.
func newLane(t require.TestingT) lane {
	l := lane{allowance: NewAllowance()}
	l.inbox = NewInbox(func(n int) { require.NoError(t, l.allowance.Grant(uint32(n))) })
	return l
}

// send sends data in pieces of the given sizes, over and over, and ends the stream. A piece may be cut.
func (l lane) send(data []byte, sizes []int) error {
	for i := 0; len(data) > 0; i++ {
		n := l.allowance.Take(min(sizes[i%len(sizes)], len(data)))
		if n == 0 {
			return io.ErrClosedPipe
		}
		if n > 1 { // as an agent that reads less than it may send
			l.allowance.Return(n / 2)
			n -= n / 2
		}
		if err := l.inbox.Receive(data[:n]); err != nil {
			return err
		}
		data = data[n:]
	}
	l.inbox.End(io.EOF)
	return nil
}

// Whatever the sizes of the pieces and of the reads: every byte arrives, in order, the sender never exceeds its
// window, and it always goes on when the receiver reads.
func TestAStreamArrivesWhateverTheSizesOfItsPieces(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		data := make([]byte, rapid.IntRange(0, 4*Window).Draw(t, "length"))
		rand.NewChaCha8([32]byte{}).Read(data)
		sizes := rapid.SliceOfN(rapid.IntRange(1<<8, MaxData+1), 1, 8).Draw(t, "sizes")
		reads := rapid.SliceOfN(rapid.IntRange(1<<8, 2*Window), 1, 8).Draw(t, "reads")
		l := newLane(t)
		sent := make(chan error, 1)
		go func() { sent <- l.send(data, sizes) }()
		var got []byte
		for i := 0; ; i++ {
			b := make([]byte, reads[i%len(reads)])
			n, err := l.inbox.Read(b)
			got = append(got, b[:n]...)
			if err == io.EOF {
				break
			}
			require.NoError(t, err)
		}
		require.NoError(t, <-sent)
		require.True(t, bytes.Equal(data, got))
	})
}

// An Inbox agrees with a simple model at every step of one goroutine.
func TestAnInboxKeepsWhatWasNotRead(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		credit := 0
		box := NewInbox(func(n int) { credit += n })
		var model []byte
		sent, read := 0, 0
		t.Repeat(map[string]func(*rapid.T){
			"receive": func(t *rapid.T) {
				p := make([]byte, rapid.IntRange(0, MaxData).Draw(t, "n"))
				rand.NewChaCha8([32]byte{byte(sent)}).Read(p)
				err := box.Receive(p)
				if sent+len(p) > Window+credit {
					require.ErrorContains(t, err, "whose window has")
					return
				}
				require.NoError(t, err)
				sent += len(p)
				model = append(model, p...)
			},
			"read": func(t *rapid.T) {
				if len(model) == 0 {
					return // it would wait
				}
				p := make([]byte, rapid.IntRange(1, 3*MaxData).Draw(t, "n"))
				n, err := box.Read(p)
				require.NoError(t, err)
				require.Equal(t, model[:n], p[:n])
				model = model[n:]
				read += n
			},
			"": func(t *rapid.T) {
				require.LessOrEqual(t, credit, read)
				require.Less(t, read-credit, Window/2, "a sender never waits for the rest of a window")
				require.LessOrEqual(t, len(box.buf), Window)
			},
		})
	})
}

func TestAStreamThatNobodyReadsStopsItsSenderAlone(t *testing.T) {
	unread, other := newLane(t), newLane(t)
	stopped := make(chan error, 1)
	go func() { stopped <- unread.send(make([]byte, 2*Window), []int{MaxData}) }()
	sent := make(chan error, 1)
	go func() { sent <- other.send(make([]byte, 3*Window), []int{MaxData}) }()
	got, err := io.ReadAll(other.inbox)
	require.NoError(t, err)
	require.Len(t, got, 3*Window)
	require.NoError(t, <-sent)
	require.Empty(t, stopped)
	unread.allowance.Close()
	require.ErrorIs(t, <-stopped, io.ErrClosedPipe)
}

func TestACreditBeyondTheWindowIsRefused(t *testing.T) {
	a := NewAllowance()
	require.ErrorContains(t, a.Grant(1), "credit of 1 bytes: the window is 262144, and 262144 are left")
	require.Equal(t, 10, a.Take(10))
	require.Error(t, a.Grant(11))
	require.Error(t, a.Grant(1<<32-1))
	require.NoError(t, a.Grant(10))
}

// A reader that waits is woken by the end of the stream, and by its own side's CloseRead.
func TestTheEndOfAStreamWakesItsReader(t *testing.T) {
	for _, end := range []func(*Inbox){func(b *Inbox) { b.End(io.ErrUnexpectedEOF) }, (*Inbox).CloseRead} {
		l := newLane(t)
		require.NoError(t, l.inbox.Receive([]byte("x")))
		var all sync.WaitGroup
		all.Go(func() {
			_, err := io.ReadAll(l.inbox)
			require.Error(t, err)
		})
		end(l.inbox)
		all.Wait()
		require.True(t, l.inbox.Ended())
	}
	l := newLane(t)
	l.inbox.CloseRead()
	require.NoError(t, l.inbox.Receive(make([]byte, 2*Window)), "what still comes is dropped")
	l = newLane(t)
	l.inbox.End(io.EOF)
	require.ErrorContains(t, l.inbox.Receive([]byte("x")), "data after the end of a stream")
}

func TestCommandsAreDecodedAsTheyWereEncoded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringMatching(`[^\x00]{0,20}`)
		c := Command{
			Args: append([]string{rapid.StringMatching(`[^\x00]{1,20}`).Draw(t, "name")}, rapid.SliceOfN(text, 0, 4).Draw(t, "args")...),
			Dir:  text.Draw(t, "dir"), Merged: rapid.Bool().Draw(t, "merged"), Terminal: rapid.Bool().Draw(t, "terminal"),
			Size:  Size{rapid.Uint16().Draw(t, "rows"), rapid.Uint16().Draw(t, "columns")},
			Piped: [Streams]bool{rapid.Bool().Draw(t, "in"), rapid.Bool().Draw(t, "out"), rapid.Bool().Draw(t, "err")},
		}
		if rapid.Bool().Draw(t, "has environment") {
			c.Env = rapid.SliceOfN(text, 0, 4).Draw(t, "env")
		}
		b, err := c.Encode()
		require.NoError(t, err)
		got, err := DecodeCommand(b)
		require.NoError(t, err)
		require.Equal(t, c, got)
	})
}

func TestABadCommandIsRefused(t *testing.T) {
	for says, c := range map[string]Command{
		"a command without a name":                  {Args: []string{""}},
		`an argument holds a NUL byte: "b\x00c"`:    {Args: []string{"a", "b\x00c"}},
		`its directory holds a NUL byte: "\x00"`:    {Args: []string{"a"}, Dir: "\x00"},
		"a variable of its environment holds a NUL": {Args: []string{"a"}, Env: []string{"A=\x00"}},
		"have 2097165 bytes: the limit is 2097152":  {Args: []string{"a", string(bytes.Repeat([]byte("b"), MaxCommand))}},
	} {
		_, err := c.Encode()
		require.ErrorContains(t, err, says)
	}
	for _, b := range [][]byte{nil, make([]byte, commandHeader), append([]byte{0xff}, make([]byte, 20)...), append(make([]byte, commandHeader), 0)} {
		_, err := DecodeCommand(b)
		require.Error(t, err, "%q", b)
	}
	refusal := Refusal{127, 2, "not found"}
	got, err := DecodeRefusal(refusal.Encode())
	require.NoError(t, err)
	require.Equal(t, refusal, got)
	_, err = DecodeRefusal([]byte{1})
	require.Error(t, err)
	size, err := DecodeSize(Size{1, 2}.Encode())
	require.NoError(t, err)
	require.Equal(t, Size{1, 2}, size)
	_, err = DecodeSize(nil)
	require.Error(t, err)
	_, _, err = DecodeStream([]byte{byte(Streams)})
	require.EqualError(t, err, "1 bytes for no stream of a command")
	n, err := DecodeNumber(EncodeNumber(7))
	require.NoError(t, err)
	require.EqualValues(t, 7, n)
}
