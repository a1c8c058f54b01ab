package agent

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"strings"
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

func sumOf(b []byte) string { return fmt.Sprintf("%x", sha256.Sum256(b)) }

func TestDeliverSendsAFileInChunks(t *testing.T) {
	for _, size := range []int{0, 1, wire.MaxChunk, wire.MaxChunk + 1, 3 * wire.MaxChunk} {
		c, _, guest := newPair(t)
		content := bytes.Repeat([]byte("guesthouse"), size/10+1)[:size]
		f := wire.File{Path: "/bin/uinit", Perm: 0o755, Size: int64(size)}
		got := make(chan []byte, 1)
		go func() {
			var all []byte
			for {
				m, err := guest.Receive()
				if err != nil {
					return
				}
				chunk, err := wire.DecodeChunk(m.Payload)
				var why []byte
				if err != nil || chunk.File != f || chunk.Offset != int64(len(all)) {
					why = []byte("another chunk")
				}
				all = append(all, chunk.Data...)
				guest.Send(wire.Message{Type: m.Type, Answers: m.Sequence, Payload: why})
				if chunk.Last() {
					got <- all
					return
				}
			}
		}()
		require.NoError(t, c.Deliver(t.Context(), f, bytes.NewReader(content), sumOf(content)))
		require.True(t, bytes.Equal(content, <-got))
		require.Empty(t, c.turn)
	}
}

func TestDeliverFailsWithTheGuestsReasonAndWithItsOwn(t *testing.T) {
	c, _, guest := newPair(t)
	f := wire.File{Path: "/bin/uinit", Perm: 0o755, Size: 4}
	go answer(t, guest, func(wire.Message) []byte { return []byte("no space left on device") })
	err := c.Deliver(t.Context(), f, strings.NewReader("text"), sumOf([]byte("text")))
	require.ErrorIs(t, err, guestfault.ErrGuest)
	require.ErrorContains(t, err, "deliver /bin/uinit: no space left on device")
	err = c.Deliver(t.Context(), f, strings.NewReader("te"), sumOf([]byte("text")))
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	require.NotErrorIs(t, err, guestfault.ErrGuest)
	err = c.Deliver(t.Context(), f, strings.NewReader("tent"), sumOf([]byte("text")))
	require.ErrorContains(t, err, "deliver /bin/uinit: its content has changed: the SHA-256 is ")
	f.Path = "uinit"
	require.ErrorContains(t, c.Deliver(t.Context(), f, strings.NewReader("text"), sumOf([]byte("text"))), "not a clean absolute path")
}
