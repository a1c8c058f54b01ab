package until

import (
	"bytes"
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var errEnough = errors.New("enough")

// The context ends when the other end has read 2 of 5 bytes.
func TestWriteEndsWithItsContextAndReturnsTheBytesWritten(t *testing.T) {
	near, far := net.Pipe()
	defer near.Close()
	defer far.Close()
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() {
		far.Read(make([]byte, 2))
		cancel(errEnough)
	}()
	n, err := Write(ctx, near, []byte("hello"))
	require.Equal(t, errEnough, err)
	require.Equal(t, 2, n)

	got := make(chan string)
	go func() {
		text := make([]byte, 3)
		far.Read(text)
		got <- string(text)
	}()
	n, err = Write(t.Context(), near, []byte("llo"))
	require.NoError(t, err, "the next write has no deadline")
	require.Equal(t, 3, n)
	require.Equal(t, "llo", <-got)
}

func TestWriteWritesNothingAfterTheEndOfItsContext(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errEnough)
	var b bytes.Buffer
	n, err := Write(ctx, &b, []byte("hello"))
	require.Equal(t, errEnough, err)
	require.Zero(t, n)
	require.Empty(t, b.String())
}

func TestWriteReturnsTheErrorOfAnEarlierDeadline(t *testing.T) {
	near, far := net.Pipe()
	defer near.Close()
	defer far.Close()
	near.SetWriteDeadline(time.Unix(1, 0))
	_, err := Write(t.Context(), near, []byte("hello"))
	var timeout net.Error
	require.ErrorAs(t, err, &timeout)
	require.True(t, timeout.Timeout())
}
