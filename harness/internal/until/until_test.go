package until

import (
	"bytes"
	"context"
	"errors"
	"net"
	"testing"
	"testing/synctest"
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

func TestReceiveWaitsForTheContextAndTheGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		start, ch := time.Now(), make(chan int, 1)
		ch <- 1
		v, ok := Receive(ctx, ch, time.Second)
		require.True(t, ok)
		require.Equal(t, 1, v)
		require.Zero(t, time.Since(start))

		time.AfterFunc(time.Minute+time.Second/2, func() { ch <- 2 })
		v, ok = Receive(ctx, ch, time.Second)
		require.True(t, ok, "the value came within the grace")
		require.Equal(t, 2, v)
		_, ok = Receive(ctx, ch, time.Second)
		require.False(t, ok)
		require.Equal(t, time.Minute+time.Second*3/2, time.Since(start))
	})
}
