package agent

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"guesthouse.example/internal/wire"
)

// The harness joins the pieces of a file as they come.
func TestTwoCallsSendCoverageDataOnce(t *testing.T) {
	a, harness, _ := newAgent(t)
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "covmeta"), make([]byte, 2*wire.MaxCoverPiece+1), 0o600))
	sent := make(chan error, 2)
	send := func() { sent <- a.sendCoverage(dir) }
	go send()
	require.Equal(t, wire.Covered, receive(t, harness).Type, "the call is in the middle of the file")
	go send()
	go func() {
		for range 2 {
			if err := <-sent; err != nil {
				t.Error(err)
			}
		}
		a.say(wire.Message{Type: wire.Remark})
	}()
	pieces := 1
	for receive(t, harness).Type == wire.Covered {
		pieces++
	}
	require.Equal(t, 3, pieces)
}
