package agent

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"guesthouse.example/harness/internal/guestfault"
	"guesthouse.example/internal/wire"
)

// newPair returns a client, and the guest's end of its line both as bytes and as messages.
func newPair(t *testing.T) (*Client, net.Conn, *wire.Conn) { return restoredPair(t, nil) }

// restoredPair is newPair for a guest that was saved.
func restoredPair(t *testing.T, saved *Saved) (*Client, net.Conn, *wire.Conn) {
	near, far := net.Pipe()
	c := New(near, io.Discard, saved)
	go c.Listen()
	t.Cleanup(func() {
		far.Close()
		<-c.Done()
	})
	return c, far, wire.NewGuest(far)
}

// answer answers one request in place of the guest's agent.
func answer(t *testing.T, guest *wire.Conn, payload func(wire.Message) []byte) {
	m, err := guest.Receive()
	require.NoError(t, err)
	_, err = guest.Send(wire.Message{Type: m.Type, Answers: m.Sequence, Payload: payload(m)})
	require.NoError(t, err)
}

func TestStatsAsksTheAgent(t *testing.T) {
	c, _, guest := newPair(t)
	_, err := guest.Send(wire.Message{Type: wire.Hello, Payload: make([]byte, 16)})
	require.NoError(t, err)
	require.NoError(t, c.AwaitHello(t.Context()))
	want := wire.Stats{Uptime: time.Second, Services: []wire.Service{{Name: "echo", Sockets: 2}}}
	go answer(t, guest, func(wire.Message) []byte {
		return want.Encode()
	})
	s, err := c.Stats(t.Context())
	require.NoError(t, err)
	require.Equal(t, want, s)
}

func TestGarbageEndsTheLine(t *testing.T) {
	c, far, _ := newPair(t)
	_, err := far.Write([]byte("Garbage of a header's length"))
	require.NoError(t, err)
	<-c.Done()
	_, err = c.Stats(t.Context())
	require.EqualError(t, err, `the guest's agent: frame at byte 0: it begins with "Garb", not with "GHAG"`)
	_, err = far.Read(make([]byte, 1))
	require.ErrorIs(t, err, io.EOF, "the guest does not wait for a reader")
}

func TestARequestToASilentAgentEndsWithItsContext(t *testing.T) {
	c, _, guest := newPair(t)
	gone := errors.New("gone")
	ctx, cancel := context.WithCancelCause(t.Context())
	received := make(chan struct{})
	go func() { // a guest that receives and does not answer
		guest.Receive()
		close(received)
		cancel(gone)
	}()
	_, err := c.Stats(ctx)
	require.ErrorIs(t, err, gone)
	<-received

	// The late answer is dropped, and the next request gets its own.
	_, err = guest.Send(wire.Message{Type: wire.Statistics, Answers: 0, Payload: wire.Stats{Uptime: 1}.Encode()})
	require.NoError(t, err)
	go answer(t, guest, func(wire.Message) []byte { return wire.Stats{Uptime: 2}.Encode() })
	s, err := c.Stats(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 2, s.Uptime)
}

// A command that was killed and has not ended is no reason for the failure of a save whose context has ended.
func TestAQuiesceWhoseContextHasEndedSaysSo(t *testing.T) {
	c, far, _ := newPair(t)
	go io.Copy(io.Discard, far)
	_, err := c.Start(t.Context(), wire.Command{Args: []string{"sleep"}})
	require.NoError(t, err)
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("enough")
	cancel(why)
	for range 100 { // the free turn and the end of the context are both there
		_, err := c.Quiesce(ctx)
		require.ErrorIs(t, err, why)
	}
}

func TestARequestToAnAgentThatDoesNotReadEndsWithItsContext(t *testing.T) {
	c, _, _ := newPair(t)
	gone := errors.New("gone")
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(10*time.Millisecond, func() { cancel(gone) })
	_, err := c.Stats(ctx)
	require.ErrorIs(t, err, gone)
}

// A net.Pipe has no buffer: a write returns when the guest has read it.
func TestTheFrameAfterAnUnreadOneIsComplete(t *testing.T) {
	for name, read := range map[string]int{"no byte is read": 0, "part of the header is read": 10} {
		t.Run(name, func(t *testing.T) {
			c, far, _ := newPair(t)
			gone := errors.New("gone")
			ctx, cancel := context.WithCancelCause(t.Context())
			begun := make([]byte, read)
			go func() {
				io.ReadFull(far, begun)
				cancel(gone)
			}()
			_, err := c.Stats(ctx)
			require.ErrorIs(t, err, gone)

			type result struct {
				wire.Stats
				error
			}
			second := make(chan result)
			go func() {
				s, err := c.Stats(t.Context())
				second <- result{s, err}
			}()
			guest := wire.NewGuest(struct {
				io.Reader
				io.Writer
			}{io.MultiReader(bytes.NewReader(begun), far), far})
			if read > 0 {
				answer(t, guest, func(wire.Message) []byte { return wire.Stats{Uptime: 1}.Encode() }) // dropped
			}
			answer(t, guest, func(wire.Message) []byte { return wire.Stats{Uptime: 2}.Encode() })
			got := <-second
			require.NoError(t, got.error)
			require.EqualValues(t, 2, got.Uptime)
		})
	}
}

func TestMessagesArriveWhileARequestIsNotRead(t *testing.T) {
	c, far, guest := newPair(t)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() {
		_, err := c.Stats(ctx)
		ended <- err
	}()
	far.Read(make([]byte, 1)) // the rest of the request stays unread
	_, err := guest.Send(wire.Message{Type: wire.Event, Payload: []byte("still here")})
	require.NoError(t, err)
	_, err = guest.Send(wire.Message{Type: wire.PowerOff, Payload: []byte("tired")})
	require.NoError(t, err)
	text, _, ok, told := c.NextEvent()
	for !ok {
		<-told
		text, _, ok, told = c.NextEvent()
	}
	require.Equal(t, "still here", text)
	cancel()
	require.ErrorIs(t, <-ended, context.Canceled)
}

func TestARequestFailsWhenTheLineEnds(t *testing.T) {
	c, far, guest := newPair(t)
	go func() {
		guest.Receive()
		far.Close()
	}()
	_, err := c.Stats(t.Context())
	require.EqualError(t, err, "the guest's agent: the line has ended")
}

func TestARequestFailsWithTheAgentsOwnError(t *testing.T) {
	c, _, guest := newPair(t)
	go func() {
		guest.Receive()
		guest.Send(wire.Message{Type: wire.Failed, Payload: []byte("no clock")})
	}()
	_, err := c.Stats(t.Context())
	require.EqualError(t, err, "the guest's agent: it says: no clock")
}

func TestReseedChecksTheGuestsClock(t *testing.T) {
	for want, change := range map[string]time.Duration{"": 0, "its clock was set to": -time.Hour} {
		c, _, guest := restoredPair(t, &Saved{Epoch: 2})
		boots := make(chan wire.BootID, clockTries)
		go func() {
			for {
				m, err := guest.Receive()
				if err != nil {
					return
				}
				r, _ := wire.DecodeRestore(m.Payload)
				boots <- r.Boot
				guest.Send(wire.Message{Type: m.Type, Answers: m.Sequence, Payload: wire.Reseeded{Clock: r.Now.Add(change)}.Encode()})
			}
		}()
		_, err := c.Reseed(t.Context(), wire.Network{}, true)
		if want == "" {
			require.NoError(t, err)
		} else {
			require.ErrorContains(t, err, want)
			require.ErrorIs(t, err, guestfault.ErrGuest)
		}
		require.EqualValues(t, 3, guest.Epoch())
		require.NotZero(t, <-boots)
		require.Empty(t, c.turn, "the next request has its turn")
	}
}
