package traffic_test

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"guesthouse.example/host/traffic"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A udpServer returns the answers to the nth datagram, counted from 0.
type udpServer func(n int, datagram []byte) (answers [][]byte)

func plainUDP(_ int, b []byte) [][]byte { return [][]byte{b} }
func silentUDP(int, []byte) [][]byte    { return nil }

// only applies a fault to datagram k and echoes the others.
func only(k int, fault func([]byte) [][]byte) udpServer {
	return func(n int, b []byte) [][]byte {
		if n == k {
			return fault(b)
		}
		return plainUDP(n, b)
	}
}

// dialUDP serves on loopback until the test ends and returns a dial function
// for it.
func dialUDP(t testing.TB, serve udpServer) traffic.DialFunc {
	t.Helper()
	conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
	require.NoError(t, err)
	var wg sync.WaitGroup
	wg.Go(func() {
		buf := make([]byte, 1<<16)
		for n := 0; ; n++ {
			size, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			for _, answer := range serve(n, append([]byte(nil), buf[:size]...)) {
				conn.WriteTo(answer, from)
			}
		}
	})
	t.Cleanup(func() {
		conn.Close()
		wg.Wait()
	})
	return dialer(t, conn.LocalAddr().String())
}

// dialTCP serves every connection with its own goroutine, and closes it when
// serve returns.
func dialTCP(t testing.TB, serve func(*net.TCPConn)) traffic.DialFunc {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer conn.Close()
				serve(conn.(*net.TCPConn))
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		wg.Wait()
	})
	return dialer(t, l.Addr().String())
}

func plainTCP(c *net.TCPConn) { io.Copy(c, onlyReader{c}) }

// altered echoes each byte as change returns it; bytes are counted from 0.
func altered(change func(n int, b byte) []byte) func(*net.TCPConn) {
	return func(c *net.TCPConn) {
		buf := make([]byte, 4096)
		for at := 0; ; {
			n, err := c.Read(buf)
			var out []byte
			for _, b := range buf[:n] {
				out = append(out, change(at, b)...)
				at++
			}
			if _, werr := c.Write(out); err != nil || werr != nil {
				return
			}
		}
	}
}

// onlyReader hides the connection's method for copying, which splices in the kernel.
type onlyReader struct{ io.Reader }

// dialer fails the test if a connection is left open.
func dialer(t testing.TB, addr string) traffic.DialFunc {
	var open atomic.Int64
	t.Cleanup(func() { assert.Zero(t, open.Load(), "connections left open") })
	return func(ctx context.Context, network string) (net.Conn, error) {
		var d net.Dialer
		conn, err := d.DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		open.Add(1)
		once := sync.OnceFunc(func() { open.Add(-1) })
		if tcp, ok := conn.(*net.TCPConn); ok {
			return countedTCP{tcp, once}, nil
		}
		return countedUDP{conn, once}, nil
	}
}

type countedUDP struct {
	net.Conn
	closed func()
}

func (c countedUDP) Close() error { c.closed(); return c.Conn.Close() }

type countedTCP struct {
	*net.TCPConn
	closed func()
}

func (c countedTCP) Close() error { c.closed(); return c.TCPConn.Close() }

// failure asserts that err wraps kind and contains each text. If kind is one of the
// package's errors, err must wrap none of the others. (A reset may also appear as ErrLost:
// the kernel reports it to the reader or to the writer, and the other sees an end.)
func failure(t *testing.T, err, kind error, says ...string) {
	t.Helper()
	require.Error(t, err)
	t.Log(err)
	assert.ErrorIs(t, err, kind)
	ours := []error{traffic.ErrLost, traffic.ErrAltered, traffic.ErrDuplicate}
	if slices.Contains(ours, kind) {
		for _, other := range ours {
			assert.Equal(t, kind == other, errors.Is(err, other), "is %v", other)
		}
	}
	for _, s := range says {
		assert.ErrorContains(t, err, s)
	}
}
