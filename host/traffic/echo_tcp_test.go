package traffic_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"guesthouse.example/host/traffic"
)

func TestEchoTCP(t *testing.T) {
	for _, window := range []int{0, 1, 1000} {
		cfg := traffic.EchoConfig{Network: "tcp", Window: window}
		require.NoError(t, traffic.Echo(t.Context(), dialTCP(t, plainTCP), cfg), "window %d", window)
	}
	cfg := traffic.EchoConfig{Network: "tcp4", Window: 1, Payloads: [][]byte{{}, []byte("x"), {}, {}, []byte("y"), {}}}
	require.NoError(t, traffic.Echo(t.Context(), dialTCP(t, plainTCP), cfg), "empty payloads")
	byteByByte := altered(func(_ int, b byte) []byte { return []byte{b} })
	require.NoError(t, traffic.Echo(t.Context(), dialTCP(t, byteByByte), traffic.EchoConfig{Network: "tcp"}))
}

// Both directions carry far more bytes at once than sockets buffer.
func TestEchoTCPStreams(t *testing.T) {
	dial := dialTCP(t, plainTCP)
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			payloads := make([][]byte, 64)
			for j := range payloads {
				payloads[j] = traffic.Bytes(uint64(i*64+j), 64<<10)
			}
			assert.NoError(t, traffic.Echo(t.Context(), dial, traffic.EchoConfig{Network: "tcp", Payloads: payloads, Window: 64}))
		})
	}
	wg.Wait()
}

// A server may read everything before it answers, if the window allows that.
func TestEchoTCPAfterHalfClose(t *testing.T) {
	collect := func(c *net.TCPConn) {
		all, _ := io.ReadAll(c)
		c.Write(all)
	}
	cfg := traffic.EchoConfig{Network: "tcp", Window: 100, Timeout: 5 * time.Second}
	require.NoError(t, traffic.Echo(t.Context(), dialTCP(t, collect), cfg))

	cfg.Window, cfg.Timeout = 1, 50*time.Millisecond
	err := traffic.Echo(t.Context(), dialTCP(t, collect), cfg)
	failure(t, err, traffic.ErrLost, "lost: nothing more came for 50ms at byte 0 of ", "; 1 of ")
}

// A service that loses what it has not sent at a half-close passes without one.
func TestEchoTCPWithoutHalfClose(t *testing.T) {
	deaf := func(c *net.TCPConn) {
		buf := make([]byte, 4096)
		for {
			n, err := c.Read(buf)
			if err != nil {
				_, _ = c.Write([]byte("too late"))
				return
			}
			if _, err := c.Write(buf[:n]); err != nil {
				return
			}
		}
	}
	cfg := traffic.EchoConfig{Network: "tcp", Window: 1, Timeout: 5 * time.Second, NoHalfClose: true}
	require.NoError(t, traffic.Echo(t.Context(), dialTCP(t, deaf), cfg))
	cfg.NoHalfClose = false
	failure(t, traffic.Echo(t.Context(), dialTCP(t, deaf), cfg), traffic.ErrAltered, "bytes after the ")

	cfg = traffic.EchoConfig{Network: "tcp", Payloads: [][]byte{[]byte("abc")}, Timeout: 5 * time.Second, NoHalfClose: true}
	ends := func(c *net.TCPConn) { io.CopyN(c, c, 3) }
	failure(t, traffic.Echo(t.Context(), dialTCP(t, ends), cfg), traffic.ErrLost, "server ended the stream before the client closed it")
	more := func(c *net.TCPConn) {
		io.ReadFull(c, make([]byte, 3))
		c.Write([]byte("abcd"))
		c.Read(make([]byte, 1))
	}
	failure(t, traffic.Echo(t.Context(), dialTCP(t, more), cfg), traffic.ErrAltered, "bytes after the 3 of the whole stream")
}

func TestEchoTCPFaults(t *testing.T) {
	payloads := append(traffic.Payloads(1)[:4], traffic.Bytes(1, 64<<10)) // 1 + 1 + 256 + 500 + 65,536 bytes
	total := 66294
	at := func(k int, with func(byte) []byte) func(*net.TCPConn) {
		return altered(func(n int, b byte) []byte {
			if n == k {
				return with(b)
			}
			return []byte{b}
		})
	}
	reset := func(c *net.TCPConn) {
		io.CopyN(c, c, 300)
		c.SetLinger(0) // Close then sends RST
	}
	over := make(chan struct{}) // closed when all connections may close
	open := func(serve func(*net.TCPConn)) func(*net.TCPConn) {
		return func(c *net.TCPConn) {
			serve(c)
			<-over
		}
	}
	for _, test := range []struct {
		name  string
		serve func(*net.TCPConn)
		kind  error
		says  []string
	}{
		{"byte flipped", at(60000, func(b byte) []byte { return []byte{^b} }), traffic.ErrAltered,
			[]string{"echo tcp: altered: stream differs at byte 60000 of 66294 (byte 59242 of payload[4]): sent ", ", got "}},
		{"byte left out", at(258, func(byte) []byte { return nil }), traffic.ErrAltered,
			[]string{"stream differs at byte 258 of 66294 (byte 0 of payload[3]): sent 4c 6f 72 65 6d 20 69 70, got 6f 72 65 6d 20 69 70 73"}},
		{"byte doubled", at(2, func(b byte) []byte { return []byte{b, b} }), traffic.ErrAltered,
			[]string{"stream differs at byte 3 of 66294 (byte 1 of payload[2]): sent 02 03 04 05 06 07 08 09, got 01 02 03"}},
		{"last byte doubled", at(total-1, func(b byte) []byte { return []byte{b, b} }), traffic.ErrAltered,
			[]string{"altered: bytes after the 66294 of the whole stream, from "}},
		{"last byte left out", at(total-1, func(byte) []byte { return nil }), traffic.ErrLost,
			[]string{"lost: server ended the stream at byte 66293 of 66294 (byte 65535 of payload[4]): the last 1 bytes did not come back; 66294 of 66294 bytes sent and half-closed"}},
		{"silent", func(c *net.TCPConn) { io.Copy(io.Discard, onlyReader{c}) }, traffic.ErrLost,
			[]string{"lost: server ended the stream at byte 0 of 66294"}},
		{"silent and open", open(func(c *net.TCPConn) { io.Copy(io.Discard, onlyReader{c}) }), traffic.ErrLost,
			[]string{"lost: nothing more came for 200ms at byte 0 of 66294 (byte 0 of payload[0]); 66294 of 66294 bytes sent and half-closed"}},
		{"never closed", open(plainTCP), traffic.ErrLost,
			[]string{"lost: every byte came back, but the server did not end the stream within 200ms"}},
		{"closed early", func(c *net.TCPConn) { io.CopyN(c, c, 300); c.CloseWrite(); io.Copy(io.Discard, c) }, traffic.ErrLost,
			[]string{"lost: server ended the stream at byte 300 of 66294 (byte 42 of payload[3]): the last 65994 bytes did not come back"}},
		{"reset", reset, syscall.ECONNRESET, []string{"echo tcp: ", " at byte ", " of 66294 "}},
	} {
		t.Run(test.name, func(t *testing.T) {
			cfg := traffic.EchoConfig{Network: "tcp", Payloads: payloads, Timeout: 200 * time.Millisecond}
			over = make(chan struct{})
			dial := dialTCP(t, test.serve)
			err := traffic.Echo(t.Context(), dial, cfg)
			close(over)
			failure(t, err, test.kind, test.says...)
		})
	}
}

// The server echoes the whole stream and ends it before the client does.
func TestEchoTCPClosedFirst(t *testing.T) {
	cfg := traffic.EchoConfig{Network: "tcp", Window: 1, Payloads: [][]byte{[]byte("ping"), make([]byte, 8<<20)}}
	err := traffic.Echo(t.Context(), dialTCP(t, func(c *net.TCPConn) { io.CopyN(c, onlyReader{c}, 4) }), cfg)
	require.Error(t, err) // the end, or the reset that answers what was sent after it
	assert.ErrorContains(t, err, fmt.Sprintf("byte 4 of %d (byte 0 of payload[1])", 4+8<<20))
}

// The server ends the stream after the last byte and before the client half-closes.
func TestEchoTCPClosedBeforeHalfClose(t *testing.T) {
	dial := dialTCP(t, func(c *net.TCPConn) { io.CopyN(c, onlyReader{c}, 4) })
	slow := func(ctx context.Context, network string) (net.Conn, error) {
		conn, err := dial(ctx, network)
		if err != nil {
			return nil, err
		}
		return slowWriter{conn.(countedTCP), make(chan struct{})}, nil
	}
	err := traffic.Echo(t.Context(), slow, traffic.EchoConfig{Network: "tcp", Payloads: [][]byte{[]byte("ping")}})
	failure(t, err, traffic.ErrLost, "server ended the stream before the half-close; 4 of 4 bytes sent")
}

// A slowWriter does not return from Write before it is closed.
type slowWriter struct {
	countedTCP
	closed chan struct{}
}

func (w slowWriter) Write(b []byte) (int, error) {
	n, err := w.countedTCP.Write(b)
	<-w.closed
	return n, err
}

func (w slowWriter) Close() error {
	select {
	case <-w.closed:
	default:
		close(w.closed)
	}
	return w.countedTCP.Close()
}

// Echo refuses a connection that cannot half-close.
func TestEchoTCPNoHalfClose(t *testing.T) {
	near, far := net.Pipe()
	defer far.Close()
	pipe := func(context.Context, string) (net.Conn, error) { return near, nil }
	err := traffic.Echo(t.Context(), pipe, traffic.EchoConfig{Network: "tcp"})
	assert.EqualError(t, err, "echo tcp: half-close: *net.pipe has no CloseWrite")
	_, err = far.Read(make([]byte, 1))
	assert.ErrorIs(t, err, io.EOF, "the connection is closed")
}
