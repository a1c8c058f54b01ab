package agent

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"guesthouse.example/internal/wire"
)

// A terminal is closed when its command ends. A new size for it may arrive just then.
func TestTheAgentOutlivesANewSizeForAClosedTerminal(t *testing.T) {
	a, harness, _ := newAgent(t)
	terminal, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	require.NoError(t, err)
	require.NoError(t, terminal.Close())
	a.commands.all = map[uint32]*command{7: {agent: a, number: 7, terminal: terminal}}
	resized := make(chan error, 1)
	go func() {
		resized <- a.about(wire.Message{Type: wire.Resize, Answers: 7, Payload: wire.Size{Rows: 1, Columns: 2}.Encode()})
	}()
	require.Contains(t, string(receive(t, harness).Payload), "terminal: ")
	require.NoError(t, <-resized)
}
