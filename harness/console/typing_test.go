package console

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A guest that is slow to echo gets no more bytes before its echo.
func TestTypeWaitsForTheEcho(t *testing.T) {
	near, far := net.Pipe()
	defer near.Close()
	defer far.Close()
	c := newConsole(near, Options{})
	typed := make(chan error, 1)
	text := bytes.Repeat([]byte("abcdefgh"), 8)
	go func() { typed <- c.Type(within(t, 10*time.Second), text) }()
	var got []byte
	for len(got) < len(text) {
		// The guest asks for many bytes and gets a few.
		buf := make([]byte, 4096)
		n, err := far.Read(buf)
		require.NoError(t, err)
		require.LessOrEqual(t, n, 32)
		got = append(got, buf[:n]...)
		require.Empty(t, typed, "Type waits for this echo")
		c.append(buf[:n])
	}
	require.NoError(t, <-typed)
	require.Equal(t, text, got)
}

func TestTypeContinuesWithoutAnEcho(t *testing.T) {
	g := newGuestLine(t)
	got := make(chan []byte, 1)
	go func() {
		buf := make([]byte, 200)
		io.ReadFull(g, buf)
		got <- buf
	}()
	text := bytes.Repeat([]byte("x"), 200)
	require.NoError(t, g.console.Type(within(t, 10*time.Second), text))
	require.Equal(t, text, <-got)
}

func TestSendFailsWhenTheLineHasEnded(t *testing.T) {
	g := newGuestLine(t)
	g.Close()
	require.Error(t, g.console.Send(within(t, 10*time.Second), "hello"))
}

// A net.Pipe accepts a byte when the far end reads it, as a UART does that hands on one byte at a time.
func TestTypeEndsWithItsContextWhileTheGuestReadsNothing(t *testing.T) {
	near, far := net.Pipe()
	defer near.Close()
	defer far.Close()
	c := newConsole(near, Options{})
	enough := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() {
		io.ReadFull(far, make([]byte, 7))
		cancel(enough)
	}()
	err := c.Type(ctx, []byte("first line\r"))
	require.ErrorIs(t, err, enough)
	require.EqualError(t, err, "type into the console: 7 of 11 bytes were sent: the guest accepts no more: enough")

	got := make(chan string)
	go func() {
		buf := make([]byte, 64)
		n, _ := far.Read(buf)
		got <- string(buf[:n])
	}()
	require.NoError(t, c.Send(within(t, 10*time.Second), "second"))
	require.Equal(t, "second\r", <-got, "the rest of the first line is never sent")
}

func TestTypeEndsWithItsContextWhileAnotherTypes(t *testing.T) {
	near, far := net.Pipe()
	defer near.Close()
	defer far.Close()
	c := newConsole(near, Options{})
	first, end := context.WithCancel(t.Context())
	begun, ended := make(chan struct{}), make(chan error)
	go func() {
		far.Read(make([]byte, 1))
		close(begun)
	}()
	go func() { ended <- c.Type(first, []byte("first")) }()
	<-begun
	enough := errors.New("enough")
	second, cancel := context.WithCancelCause(t.Context())
	cancel(enough)
	require.ErrorIs(t, c.Type(second, []byte("second")), enough)
	end()
	require.ErrorIs(t, <-ended, context.Canceled)
}
