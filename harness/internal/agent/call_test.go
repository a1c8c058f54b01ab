package agent

import (
	"context"
	"io/fs"
	"testing"

	"github.com/stretchr/testify/require"

	"guesthouse.example/harness/internal/guestfault"
	"guesthouse.example/internal/wire"
)

func TestCallsAndRequestsDoNotWaitForEachOther(t *testing.T) {
	c, _, guest := newPair(t)
	received := make(chan wire.Message)
	go func() { // the line has no buffer: Begin returns when the guest has read the call
		for range 2 {
			m, err := guest.Receive()
			if err != nil {
				break
			}
			received <- m
		}
		close(received)
	}()
	var asked [2]wire.Message
	first, err := c.Begin(t.Context(), wire.CopyIn, nil)
	require.NoError(t, err)
	asked[0] = <-received
	second, err := c.Begin(t.Context(), wire.Look, nil)
	require.NoError(t, err)
	asked[1] = <-received
	go answer(t, guest, func(wire.Message) []byte { return nil })
	require.NoError(t, c.Run(t.Context(), wire.Program{}))

	_, err = c.Quiesce(t.Context())
	require.ErrorContains(t, err, "files of the guest are being copied or read")

	_, err = guest.Send(wire.Message{Type: wire.Look, Answers: asked[1].Sequence, Payload: wire.Result{Data: []byte("data")}.Encode()})
	require.NoError(t, err)
	data, err := second.Await(t.Context())
	require.NoError(t, err)
	require.Equal(t, "data", string(data))

	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = first.Await(ended)
	require.ErrorIs(t, err, context.Canceled)
	_, err = guest.Send(wire.Message{Type: wire.CopyIn, Answers: asked[0].Sequence, Payload: wire.Result{Err: fs.ErrNotExist}.Encode()})
	require.NoError(t, err)
	_, err = first.Await(t.Context())
	require.ErrorIs(t, err, guestfault.ErrGuest)
	require.ErrorContains(t, err, "file does not exist")
	require.NoError(t, c.noCommands())
}

func TestACallThatIsNotSentLeavesAnotherOne(t *testing.T) {
	c, _, guest := newPair(t)
	received := make(chan error, 1)
	go func() {
		_, err := guest.Receive()
		received <- err
	}()
	_, err := c.Begin(t.Context(), wire.Look, nil)
	require.NoError(t, err)
	require.NoError(t, <-received)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = c.Begin(ended, wire.Look, nil)
	require.ErrorIs(t, err, context.Canceled)
	require.Error(t, c.noCommands(), "the client has forgotten the first call")
}
