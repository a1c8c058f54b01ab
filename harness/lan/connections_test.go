package lan_test

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"guesthouse.example/harness/lan"
)

// A machine with an open connection cannot be saved, whichever end has opened it.
func TestALineKnowsTheConnectionsOfItsMachine(t *testing.T) {
	l := newLan(t, lan.Config{})
	a, b := join(t, l, "a"), join(t, l, "b")
	echoTCP(t, a)
	closed := func() bool {
		open, transient := a.Line.Connections()
		return open == "" && transient == ""
	}
	require.True(t, closed())
	for _, host := range []string{"192.0.2.1", "[2001:db8::1]"} {
		c, err := l.Dial(within(t), "tcp", host+":4242")
		require.NoError(t, err)
		open, _ := a.Line.Connections()
		require.Equal(t, fmt.Sprintf("TCP[ESTABLISHED] %v %v", c.LocalAddr(), c.RemoteAddr()), open)
		require.NoError(t, c.Close())
		require.Eventually(t, closed, time.Minute, time.Millisecond)
	}
	listener, err := l.Listen("tcp", ":80")
	require.NoError(t, err)
	defer listener.Close()
	c, err := a.DialTCP(within(t), netip.AddrPortFrom(l.Lookup("host")[0], 80))
	require.NoError(t, err)
	accepted, err := listener.Accept()
	require.NoError(t, err)
	open, _ := a.Line.Connections()
	require.Contains(t, open, "TCP[ESTABLISHED] 192.0.2.2:80 192.0.2.1:")
	require.NoError(t, accepted.Close())
	_, transient := a.Line.Connections()
	require.NotEmpty(t, transient, "the guest has not closed its end")
	require.NoError(t, c.Close())
	require.Eventually(t, closed, time.Minute, time.Millisecond)

	require.NoError(t, l.Link("a").SetFaults(lan.Down, lan.Faults{Loss: 1}))
	ctx, cancel := context.WithCancel(t.Context())
	dialed := make(chan error, 1)
	go func() { _, err := l.Dial(ctx, "tcp", "a:4242"); dialed <- err }()
	require.Eventually(t, func() bool { _, transient = a.Line.Connections(); return transient != "" }, time.Minute, time.Millisecond)
	require.Contains(t, transient, " 192.0.2.1:4242", "the guest has not answered")
	cancel()
	require.ErrorIs(t, <-dialed, context.Canceled)
	require.Eventually(t, closed, time.Minute, time.Millisecond)
	open, transient = b.Line.Connections()
	require.Empty(t, open+transient)
}
