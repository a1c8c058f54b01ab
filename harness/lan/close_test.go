package lan_test

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"guesthouse.example/harness/lan"
)

func TestConnectionsEndWithTheirMachine(t *testing.T) {
	l := newLan(t, lan.Config{})
	a, b := join(t, l, "a"), join(t, l, "b")
	echoTCP(t, a)
	echoUDP(t, a)
	echoTCP(t, b)
	dial := func(network, host string) net.Conn {
		c, err := l.Dial(within(t), network, host+":4242")
		require.NoError(t, err)
		t.Cleanup(func() { c.Close() })
		return c
	}
	doomed, other := []net.Conn{dial("tcp", "a"), dial("tcp6", "a"), dial("udp", "a")}, dial("tcp", "b")
	ended := make(chan error, len(doomed))
	for _, c := range doomed {
		go func() {
			_, err := c.Read(make([]byte, 1))
			ended <- err
		}()
	}
	why := errors.New("the guest has crashed")
	require.NoError(t, a.Line.Close(why))
	for range doomed {
		err := <-ended
		require.ErrorIs(t, err, why)
		require.ErrorAs(t, err, new(*net.OpError))
	}
	for _, c := range doomed {
		require.NoError(t, c.SetDeadline(time.Time{}))
		_, err := c.Write([]byte("x"))
		require.ErrorIs(t, err, why)
	}
	echo(t, other, "still here")
	require.Nil(t, l.Lookup("a"))
	require.Equal(t, "192.0.2.1/24", join(t, l, "c").Addresses()[0].String(), "the address is free again")
}

func TestCloseEndsEverything(t *testing.T) {
	l, err := lan.New(lan.Config{})
	require.NoError(t, err)
	g := join(t, l, "a")
	echoTCP(t, g)
	c, err := l.Dial(within(t), "tcp", "a:4242")
	require.NoError(t, err)
	defer c.Close()
	listener, err := l.Listen("tcp", ":80")
	require.NoError(t, err)
	packets, err := l.ListenPacket("udp", ":80")
	require.NoError(t, err)
	ended := make(chan error, 4)
	go func() { _, err := c.Read(make([]byte, 1)); ended <- err }()
	go func() { _, err := listener.Accept(); ended <- err }()
	go func() { _, _, err := packets.ReadFrom(make([]byte, 1)); ended <- err }()
	go func() { _, err := l.Ping(within(t), "192.0.2.77"); ended <- err }()
	require.NoError(t, l.Close())
	for range cap(ended) {
		require.ErrorIs(t, <-ended, lan.ErrClosed)
	}
	require.NoError(t, l.Close())
	_, err = l.Dial(within(t), "tcp", "192.0.2.1:4242")
	require.ErrorIs(t, err, lan.ErrClosed)
	_, err = l.Dial(within(t), "udp", "192.0.2.1:4242")
	require.ErrorIs(t, err, lan.ErrClosed)
	_, err = l.Listen("tcp", ":81")
	require.ErrorIs(t, err, lan.ErrClosed)
	_, err = l.Join("")
	require.ErrorIs(t, err, lan.ErrClosed)
}

func TestWaitsEndWithTheirContext(t *testing.T) {
	l := newLan(t, lan.Config{})
	why := errors.New("enough")
	ctx, cancel := context.WithCancelCause(context.Background())
	ended := make(chan error, 2)
	go func() { _, err := l.Dial(ctx, "tcp", "192.0.2.77:1"); ended <- err }()
	go func() { _, err := l.Ping(ctx, "2001:db8::77"); ended <- err }()
	cancel(why)
	require.ErrorIs(t, <-ended, why)
	require.ErrorIs(t, <-ended, why)
}
