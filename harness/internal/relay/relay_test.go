package relay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// far is a port that only the test should reach: an echo service.
func far(t *testing.T, network string) Dial {
	address := ""
	if network == "udp" {
		c, err := net.ListenPacket("udp4", "127.0.0.1:0")
		require.NoError(t, err)
		t.Cleanup(func() { c.Close() })
		address = c.LocalAddr().String()
		go func() {
			buf := make([]byte, maxDatagram)
			for {
				n, from, err := c.ReadFrom(buf)
				if err != nil {
					return
				}
				c.WriteTo(buf[:n], from)
			}
		}()
	} else {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		require.NoError(t, err)
		t.Cleanup(func() { l.Close() })
		address = l.Addr().String()
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func() {
					defer c.Close()
					io.Copy(c, c)
				}()
			}
		}()
	}
	return func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, address)
	}
}

func listen(t *testing.T, network string, dial Dial) *Relay {
	r, err := Listen(network, dial)
	require.NoError(t, err)
	t.Cleanup(r.Close)
	return r
}

func connect(t *testing.T, network string, r *Relay) net.Conn {
	c, err := net.Dial(network, fmt.Sprint("127.0.0.1:", r.Port()))
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	require.NoError(t, c.SetDeadline(time.Now().Add(time.Minute)))
	return c
}

func TestStreamsKeepEveryByteAndTheirEnd(t *testing.T) {
	r := listen(t, "tcp", far(t, "tcp"))
	for range 3 {
		c := connect(t, "tcp", r)
		sent := make([]byte, 1<<20)
		for i := range sent {
			sent[i] = byte(i * i >> 9)
		}
		go func() {
			c.Write(sent)
			c.(*net.TCPConn).CloseWrite()
		}()
		got, err := io.ReadAll(c)
		require.NoError(t, err)
		require.Equal(t, sent, got)
	}
}

func TestAConnectionThatTheFarEndRefusesIsReset(t *testing.T) {
	r := listen(t, "tcp", func(context.Context) (net.Conn, error) { return nil, errors.New("refused") })
	c, err := net.Dial("tcp", fmt.Sprint("127.0.0.1:", r.Port()))
	if err == nil { // the reset may come before Dial has looked
		defer c.Close()
		_, err = c.Read(make([]byte, 1))
	}
	require.Error(t, err)
	require.NotErrorIs(t, err, io.EOF)
}

// Each client gets its own answers. When there are too many, the one that has been silent for longest makes room, and
// can come back.
func TestDatagramsReturnToTheirClients(t *testing.T) {
	r := listen(t, "udp", far(t, "udp"))
	clients := make([]net.Conn, maxClients+5)
	for i := range clients {
		clients[i] = connect(t, "udp", r)
	}
	for round := range 2 {
		for i, c := range clients {
			sent := fmt.Sprint("round ", round, " client ", i)
			_, err := c.Write([]byte(sent))
			require.NoError(t, err)
			buf := make([]byte, 100)
			n, err := c.Read(buf)
			require.NoError(t, err)
			require.Equal(t, sent, string(buf[:n]))
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	require.Len(t, r.clients, maxClients)
}

func TestCloseEndsAllConnections(t *testing.T) {
	for _, network := range []string{"tcp", "udp"} {
		r := listen(t, network, far(t, network))
		c := connect(t, network, r)
		_, err := c.Write([]byte("x"))
		require.NoError(t, err)
		_, err = c.Read(make([]byte, 1))
		require.NoError(t, err)
		r.Close()
		if network == "tcp" {
			_, err = c.Read(make([]byte, 1))
			require.Error(t, err)
		}
		_, err = net.Dial("tcp", fmt.Sprint("127.0.0.1:", r.Port()))
		require.Error(t, err)
	}
}

// A machine that never answers does not hold up Close.
func TestCloseEndsADialUnderWay(t *testing.T) {
	dialing := make(chan bool)
	r := listen(t, "tcp", func(ctx context.Context) (net.Conn, error) {
		close(dialing)
		<-ctx.Done()
		return nil, context.Cause(ctx)
	})
	connect(t, "tcp", r)
	<-dialing
	r.Close()
}
