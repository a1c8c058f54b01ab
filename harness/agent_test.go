package harness

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"guesthouse.example/internal/wire"
)

// agentPair returns the harness's end of a line, and the guest's, raw and as a
// conversation.
func agentPair(t *testing.T) (*agent, net.Conn, *wire.Conn) {
	near, far := net.Pipe()
	a := newAgent(near, io.Discard)
	go a.listen()
	t.Cleanup(func() {
		far.Close()
		<-a.ended
	})
	return a, far, wire.NewGuest(far)
}

// answers plays the guest's agent for one request.
func answers(t *testing.T, guest *wire.Conn, payload func(wire.Message) []byte) {
	m, err := guest.Receive()
	require.NoError(t, err)
	_, err = guest.Send(wire.Message{Type: m.Type, Answers: m.Sequence, Payload: payload(m)})
	require.NoError(t, err)
}

func TestTheAgentIsAsked(t *testing.T) {
	a, _, guest := agentPair(t)
	_, err := guest.Send(wire.Message{Type: wire.Hello, Payload: make([]byte, 16)})
	require.NoError(t, err)
	<-a.hello
	go answers(t, guest, func(wire.Message) []byte {
		return wire.Stats{Uptime: time.Second, Services: []wire.Service{{Name: "echo", Sockets: 2}}}.Encode()
	})
	s, err := a.stats(t.Context())
	require.NoError(t, err)
	require.Equal(t, Stats{BootID: "00000000-0000-0000-0000-000000000000", Uptime: time.Second,
		Services: []ServiceStats{{Name: "echo", Sockets: 2}}}, s)
}

func TestTheAgentBreaksOffAtGarbage(t *testing.T) {
	a, far, _ := agentPair(t)
	_, err := far.Write([]byte("Garbage of a header's length"))
	require.NoError(t, err)
	<-a.ended
	_, err = a.stats(t.Context())
	require.EqualError(t, err, `the guest's agent: frame at byte 0: it begins with "Garb", not with "GHAG"`)
	_, err = far.Read(make([]byte, 1))
	require.ErrorIs(t, err, io.EOF, "the guest is not left waiting")
}

func TestASilentAgentCostsNoMoreThanTheDeadline(t *testing.T) {
	a, _, guest := agentPair(t)
	gone := errors.New("gone")
	ctx, cancel := context.WithCancelCause(t.Context())
	heard := make(chan struct{})
	go func() { // hears and says nothing
		guest.Receive()
		close(heard)
		cancel(gone)
	}()
	_, err := a.stats(ctx)
	require.ErrorIs(t, err, gone)
	<-heard

	// The late answer is for nobody, and the next question has its own.
	_, err = guest.Send(wire.Message{Type: wire.Statistics, Answers: 0, Payload: wire.Stats{Uptime: 1}.Encode()})
	require.NoError(t, err)
	go answers(t, guest, func(wire.Message) []byte { return wire.Stats{Uptime: 2}.Encode() })
	s, err := a.stats(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 2, s.Uptime)
}

func TestAnAgentThatDoesNotReadHoldsUpNobody(t *testing.T) {
	a, _, _ := agentPair(t)
	gone := errors.New("gone")
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(10*time.Millisecond, func() { cancel(gone) })
	_, err := a.stats(ctx)
	require.ErrorIs(t, err, gone)
}

// The far end of a net.Pipe has what it has read and no more.
func TestARequestThatIsNotReadEndsWithItsContextAndTheNextIsWhole(t *testing.T) {
	for name, read := range map[string]int{"nothing of it is read": 0, "half of it is read": 10} {
		t.Run(name, func(t *testing.T) {
			a, far, _ := agentPair(t)
			gone := errors.New("gone")
			ctx, cancel := context.WithCancelCause(t.Context())
			begun := make([]byte, read)
			go func() {
				io.ReadFull(far, begun)
				cancel(gone)
			}()
			_, err := a.stats(ctx)
			require.ErrorIs(t, err, gone)

			type result struct {
				Stats
				error
			}
			second := make(chan result)
			go func() {
				s, err := a.stats(t.Context())
				second <- result{s, err}
			}()
			guest := wire.NewGuest(struct {
				io.Reader
				io.Writer
			}{io.MultiReader(bytes.NewReader(begun), far), far})
			if read > 0 {
				answers(t, guest, func(wire.Message) []byte { return wire.Stats{Uptime: 1}.Encode() }) // for nobody
			}
			answers(t, guest, func(wire.Message) []byte { return wire.Stats{Uptime: 2}.Encode() })
			got := <-second
			require.NoError(t, got.error)
			require.EqualValues(t, 2, got.Uptime)
		})
	}
}

func TestWhileARequestIsNotReadTheGuestIsHeard(t *testing.T) {
	a, far, guest := agentPair(t)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() {
		_, err := a.stats(ctx)
		ended <- err
	}()
	far.Read(make([]byte, 1)) // the request is on its way, and stays there
	_, err := guest.Send(wire.Message{Type: wire.Event, Payload: []byte("still here")})
	require.NoError(t, err)
	_, err = guest.Send(wire.Message{Type: wire.PowerOff, Payload: []byte("tired")})
	require.NoError(t, err)
	text, _, ok, told := a.next()
	for !ok {
		<-told
		text, _, ok, told = a.next()
	}
	require.Equal(t, "still here", text)
	cancel()
	require.ErrorIs(t, <-ended, context.Canceled)
}

func TestTheLineToTheAgentEnds(t *testing.T) {
	a, far, guest := agentPair(t)
	go func() {
		guest.Receive()
		far.Close()
	}()
	_, err := a.stats(t.Context())
	require.EqualError(t, err, "the guest's agent: the line has ended")
}

func TestTheAgentSaysWhyItEnds(t *testing.T) {
	a, _, guest := agentPair(t)
	go func() {
		guest.Receive()
		guest.Send(wire.Message{Type: wire.Failed, Payload: []byte("no clock")})
	}()
	_, err := a.stats(t.Context())
	require.EqualError(t, err, "the guest's agent: it says: no clock")
}

func TestARestoredGuestMustHaveTheHostsClock(t *testing.T) {
	for says, change := range map[string]time.Duration{"": 0, "its clock was set to": -time.Hour} {
		a, _, guest := agentPair(t)
		boots := make(chan wire.BootID, clockTries)
		go func() {
			for {
				m, err := guest.Receive()
				if err != nil {
					return
				}
				r, _ := wire.DecodeRestore(m.Payload)
				boots <- r.Boot
				guest.Send(wire.Message{Type: m.Type, Answers: m.Sequence, Payload: wire.Renewed{Clock: r.Now.Add(change)}.Encode()})
			}
		}()
		_, err := a.restored(t.Context(), 3, true)
		if says == "" {
			require.NoError(t, err)
		} else {
			require.ErrorContains(t, err, says)
			require.ErrorIs(t, err, ErrGuest)
		}
		require.EqualValues(t, 3, guest.Epoch())
		require.NotZero(t, <-boots)
		require.Empty(t, a.turn, "others may ask again")
	}
}

func TestEventsAreTakenInTheirOrder(t *testing.T) {
	a, far, guest := agentPair(t)
	_, err := guest.Send(wire.Message{Type: wire.Hello, Payload: make([]byte, 16)})
	require.NoError(t, err)
	m := &Machine{plan: &plan{}, agent: a, console: newConsole(io.Discard, io.Discard), drained: make(chan struct{})}
	gone, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("gone"))
	<-a.hello
	_, err = m.Event(gone)
	require.EqualError(t, err, "event of : none was told: gone")

	first := make(chan string, 1)
	go func() {
		text, _ := m.Event(t.Context())
		first <- text
	}()
	for _, text := range []string{"one", "two"} {
		_, err = guest.Send(wire.Message{Type: wire.Event, Payload: []byte(text)})
		require.NoError(t, err)
	}
	_, err = guest.Send(wire.Message{Type: wire.PowerOff, Payload: []byte("tired")})
	require.NoError(t, err)
	require.Equal(t, "one", <-first)
	far.Close()
	<-a.ended
	close(m.drained)
	text, err := m.Event(t.Context())
	require.NoError(t, err, "it was told before the line ended")
	require.Equal(t, "two", text)
	_, err = m.Event(t.Context())
	require.EqualError(t, err, "event of : the guest's agent: the line has ended")
	require.Equal(t, "tired", a.poweredOff())
}
