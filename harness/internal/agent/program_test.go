package agent

import (
	"testing"

	"github.com/stretchr/testify/require"

	"guesthouse.example/harness/internal/guestfault"
	"guesthouse.example/internal/wire"
)

func TestRunTellsWhyAProgramIsNotStarted(t *testing.T) {
	c, _, guest := newPair(t)
	program := wire.Program{Args: []string{"-v"}, Env: []string{"K=V"}}
	go answer(t, guest, func(m wire.Message) []byte {
		got, err := wire.DecodeProgram(m.Payload)
		if err != nil || m.Type != wire.Run || got.Args[0] != "-v" || got.Env[0] != "K=V" {
			return []byte("another request")
		}
		return nil
	})
	require.NoError(t, c.Run(t.Context(), program))
	go answer(t, guest, func(wire.Message) []byte { return []byte("exec format error\x1b") })
	err := c.Run(t.Context(), program)
	require.ErrorIs(t, err, guestfault.ErrGuest)
	require.ErrorContains(t, err, `start the guest program: exec format error\x1b`)
	require.ErrorContains(t, c.Run(t.Context(), wire.Program{Env: []string{"K"}}), `variable "K"`)
}
