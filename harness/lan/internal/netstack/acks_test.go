package netstack

import (
	"io"
	"testing"

	"github.com/stretchr/testify/require"
)

// In a conversation each message carries the acknowledgment of the one before.
func TestAConversationNeedsNoAcknowledgmentsOfTheirOwn(t *testing.T) {
	w := newWire(t)
	near, far := w.connect(t, 0)
	go io.Copy(far, far)
	const trips = 500
	b := make([]byte, 32)
	for range trips {
		_, err := near.Write(b)
		require.NoError(t, err)
		_, err = io.ReadFull(near, b)
		require.NoError(t, err)
	}
	require.Less(t, w.acknowledgments(), trips/2)
}

// The last answer of a conversation is acknowledged, though no message follows. Until the next message, every segment is
// acknowledged at once.
func TestTheEndOfAConversationIsAcknowledged(t *testing.T) {
	w := newWire(t)
	near, far := w.connect(t, 0)
	b := make([]byte, 32)
	for range 20 {
		_, err := near.Write(b)
		require.NoError(t, err)
		_, err = io.ReadFull(far, b)
		require.NoError(t, err)
		_, err = far.Write(b)
		require.NoError(t, err)
		_, err = io.ReadFull(near, b)
		require.NoError(t, err)
	}
	before := w.acknowledgments()
	for i := range 10 {
		_, err := far.Write(b)
		require.NoError(t, err)
		_, err = io.ReadFull(near, b)
		require.NoError(t, err)
		for w.acknowledgments() <= before+i {
			<-w.sent
		}
	}
}
