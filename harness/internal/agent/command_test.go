package agent

import (
	"testing"

	"github.com/stretchr/testify/require"

	"guesthouse.example/internal/wire"
)

// A guest that breaks the protocol loses its line. It must not crash the host's process.
func TestACommandEndsOnce(t *testing.T) {
	c, _, guest := newPair(t)
	go func() {
		m, err := guest.Receive()
		if err != nil {
			return
		}
		guest.Send(wire.Message{Type: wire.Output, Answers: m.Sequence, Payload: []byte("\x01out")})
		for range 2 {
			guest.Send(wire.Message{Type: wire.Exited, Answers: m.Sequence, Payload: wire.Exit{Status: 3}.Encode()})
		}
	}()
	command, err := c.Start(t.Context(), []string{"true"})
	require.NoError(t, err)
	<-c.Done()
	require.EqualError(t, c.Err(), "the guest's agent: a command has ended twice")
	<-command.Done()
	out := command.Output()
	require.Equal(t, 3, out.Exit.Status)
	require.Equal(t, "out", string(out.Stdout.Kept))
	require.Equal(t, "out", string(out.Combined.Kept))
	require.Empty(t, out.Stderr.Kept)
}
