package console

import (
	"context"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestFollowWritesTheLogFromItsFirstByte(t *testing.T) {
	g := newGuestLine(t)
	g.print("early\n")
	var seen syncBuffer
	done := make(chan error)
	go func() { done <- g.console.Follow(t.Context(), &seen) }()
	g.print("late")
	g.Close()
	require.NoError(t, <-done)
	require.Equal(t, "early\nlate", seen.String())
}

func TestASlowFollowerDoesNotStallTheGuest(t *testing.T) {
	g := newGuestLine(t)
	never, stuck := io.Pipe()
	done := make(chan error)
	go func() { done <- g.console.Follow(t.Context(), stuck) }()
	for range 100 {
		g.print(strings.Repeat("x", 64<<10)) // would block if Follow held up the line
	}
	g.print("\nstill alive\n")
	expect(t, g.console, "still alive")
	never.Close()
	require.Error(t, <-done)
}

func TestFollowEndsWithItsContextWhileNobodyReads(t *testing.T) {
	g := newGuestLine(t)
	g.print("hello\n")
	reader, writer := io.Pipe()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- g.console.Follow(ctx, writer) }()
	reader.Read(make([]byte, 1)) // the rest of the write blocks
	cancel()
	require.ErrorIs(t, <-ended, context.Canceled)
	reader.Close() // ends the write that Follow left behind
}
