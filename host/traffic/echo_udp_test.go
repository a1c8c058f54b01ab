package traffic_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"guesthouse.example/host/traffic"
)

func TestPayloads(t *testing.T) {
	list := traffic.Payloads(7)
	require.Len(t, list, 22)
	assert.Equal(t, []byte("A"), list[0])
	assert.Equal(t, []byte{0}, list[1])
	require.Len(t, list[2], 256)
	assert.Equal(t, byte(1), list[2][0])
	assert.Equal(t, byte(0), list[2][255])
	assert.Len(t, list[3], 500)
	assert.Len(t, list[4], 1400)
	assert.True(t, bytes.HasPrefix(list[3], []byte("Lorem ipsum dolor")))
	assert.True(t, bytes.HasPrefix(list[4], []byte("Ut enim")), "%q", list[4][:8])
	assert.Len(t, list[5], 1472)
	for _, p := range list {
		assert.True(t, len(p) >= 1 && len(p) <= 1472, "%d bytes", len(p))
	}
	assert.Equal(t, list, traffic.Payloads(7))
	assert.NotEqual(t, list[5:], traffic.Payloads(8)[5:])
	assert.Equal(t, traffic.Bytes(3, 100), traffic.Bytes(3, 200)[:100])

	// Runs of different machines and Go versions must send the same bytes.
	sum := sha256.Sum256(slices.Concat(traffic.Payloads(1)...))
	assert.Equal(t, "737dcc3e280a7db4", fmt.Sprintf("%x", sum[:8]))
}

func TestEchoUDP(t *testing.T) {
	for _, window := range []int{0, 1, 5, 1000} {
		cfg := traffic.EchoConfig{Network: "udp4", Window: window}
		require.NoError(t, traffic.Echo(t.Context(), dialUDP(t, plainUDP), cfg), "window %d", window)
	}
	require.NoError(t, traffic.Echo(t.Context(), dialUDP(t, plainUDP), traffic.EchoConfig{}), "zero value")
	same := traffic.EchoConfig{Payloads: [][]byte{[]byte("x"), {}, []byte("x"), []byte("x"), {}}}
	require.NoError(t, traffic.Echo(t.Context(), dialUDP(t, plainUDP), same), "equal and empty payloads")
}

// Datagrams may overtake each other. Here each four come back in reverse order.
func TestEchoUDPReordered(t *testing.T) {
	var held [][]byte
	reverse := func(_ int, b []byte) [][]byte {
		held = append(held, b)
		if len(held) < 4 {
			return nil
		}
		slices.Reverse(held)
		out := held
		held = nil
		return out
	}
	require.NoError(t, traffic.Echo(t.Context(), dialUDP(t, reverse), traffic.EchoConfig{
		Payloads: traffic.Payloads(1)[:20], Window: 4,
	}))
}

func TestEchoUDPFaults(t *testing.T) {
	drop := func([]byte) [][]byte { return nil }
	flip := func(b []byte) [][]byte { b[len(b)/2] ^= 0xff; return [][]byte{b} }
	for _, test := range []struct {
		name  string
		serve udpServer
		kind  error
		says  []string
	}{
		{"silent", silentUDP, traffic.ErrLost,
			[]string{"echo udp: payload[0] (1 bytes): lost: no answer 100ms after send 1 of 1; 0 of 22 payloads answered, 16 in flight: [0][1][2][3][4][5][6][7][8][9][10][11][12][13][14][15]"}},
		{"one dropped", only(4, drop), traffic.ErrLost,
			[]string{"payload[4] (1400 bytes): lost: no answer 100ms after send 1 of 1; 21 of 22 payloads answered, 1 in flight: [4]"}},
		{"last dropped", only(21, drop), traffic.ErrLost, []string{"payload[21]", "21 of 22 payloads answered"}},
		{"one byte flipped", only(4, flip), traffic.ErrAltered,
			[]string{"payload[4] (1400 bytes): altered: 1 of 1400 bytes differ, first at offset 700: sent ", "in flight"}},
		{"the only byte flipped", only(0, flip), traffic.ErrAltered,
			[]string{"payload[0] (1 bytes): altered: 1 of 1 bytes differ, first at offset 0: sent 41, got be"}},
		{"truncated by a byte", only(5, func(b []byte) [][]byte { return [][]byte{b[:1471]} }), traffic.ErrAltered,
			[]string{"payload[5] (1472 bytes): altered: truncated to the first 1471 of 1472 bytes"}},
		{"truncated to four", only(5, func(b []byte) [][]byte { return [][]byte{b[:4]} }), traffic.ErrAltered,
			[]string{"payload[5] (1472 bytes): altered: truncated to the first 4 of 1472 bytes"}},
		{"extended", only(2, func(b []byte) [][]byte { return [][]byte{append(b, "xyz"...)} }), traffic.ErrAltered,
			[]string{"payload[2] (256 bytes): altered: 3 bytes after the 256 sent, from 78 79 7a"}},
		{"extended greatly", only(0, func(b []byte) [][]byte { return [][]byte{append(b, "bcd"...)} }), traffic.ErrAltered,
			[]string{"payload[0] (1 bytes): altered: 3 bytes after the 1 sent, from 62 63 64"}},
		{"a byte left out", only(3, func(b []byte) [][]byte { return [][]byte{append(b[:498], b[499])} }), traffic.ErrAltered,
			[]string{"payload[3] (500 bytes): altered: 499 bytes for the 500 sent, first difference at offset 498: sent "}},
		{"invented", only(3, func(b []byte) [][]byte { return [][]byte{b, []byte("who is it?")} }), traffic.ErrAltered,
			[]string{"altered: a datagram of 10 bytes that resembles no payload: 77 68 6f 20 69 73 20 69;"}},
		{"first duplicated", only(0, func(b []byte) [][]byte { return [][]byte{b, b} }), traffic.ErrDuplicate,
			[]string{"payload[0] (1 bytes): duplicate: one more answer than the 1 sent"}},
		{"last duplicated", only(21, func(b []byte) [][]byte { return [][]byte{b, b} }), traffic.ErrDuplicate,
			[]string{"payload[21]", "22 of 22 payloads answered, 0 in flight"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			err := traffic.Echo(t.Context(), dialUDP(t, test.serve), traffic.EchoConfig{Timeout: 100 * time.Millisecond})
			failure(t, err, test.kind, test.says...)
		})
	}
}

func TestEchoUDPResend(t *testing.T) {
	cfg := traffic.EchoConfig{Timeout: 50 * time.Millisecond, Resend: 3}
	lossy := func(n int, b []byte) [][]byte {
		if n%3 == 0 {
			return nil
		}
		return [][]byte{b}
	}
	require.NoError(t, traffic.Echo(t.Context(), dialUDP(t, lossy), cfg))

	cfg.Payloads = [][]byte{[]byte("hello")}
	err := traffic.Echo(t.Context(), dialUDP(t, silentUDP), cfg)
	failure(t, err, traffic.ErrLost, "no answer 50ms after send 4 of 4")

	// The answers to the first send and to the second, both after the second.
	late := func(further int) udpServer {
		var held []byte
		return func(n int, b []byte) [][]byte {
			if n == 0 {
				held = b
				return nil
			}
			return append([][]byte{held, b}, slices.Repeat([][]byte{b}, further)...)
		}
	}
	require.NoError(t, traffic.Echo(t.Context(), dialUDP(t, late(0)), cfg))

	// A third one answers nothing.
	err = traffic.Echo(t.Context(), dialUDP(t, late(1)), cfg)
	failure(t, err, traffic.ErrDuplicate, "one more answer than the 2 sent")
}

func TestEchoNoServer(t *testing.T) {
	conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
	require.NoError(t, err)
	addr := conn.LocalAddr().String()
	require.NoError(t, conn.Close())
	err = traffic.Echo(t.Context(), dialer(t, addr), traffic.EchoConfig{})
	failure(t, err, syscall.ECONNREFUSED, "echo udp: ", "0 of 22 payloads answered")
	err = traffic.Echo(t.Context(), dialer(t, addr), traffic.EchoConfig{Network: "tcp"})
	failure(t, err, syscall.ECONNREFUSED, "echo tcp: dial: ")
	err = traffic.Echo(t.Context(), dialer(t, addr), traffic.EchoConfig{Network: "sctp"})
	assert.EqualError(t, err, `echo: unknown network "sctp": use udp or tcp`)
	err = traffic.Echo(t.Context(), dialUDP(t, plainUDP), traffic.EchoConfig{Payloads: [][]byte{make([]byte, 1<<16)}})
	failure(t, err, syscall.EMSGSIZE, "echo udp: send payload[0] (65536 bytes): ")
}

// The end of the context ends a run that waits for an answer.
func TestEchoContext(t *testing.T) {
	gone := errors.New("the machine is gone")
	for _, network := range []string{"udp", "tcp"} {
		ctx, cancel := context.WithCancelCause(t.Context())
		dial := dialUDP(t, func(n int, b []byte) [][]byte {
			cancel(gone)
			return nil
		})
		if network == "tcp" {
			dial = dialTCP(t, func(c *net.TCPConn) {
				c.Read(make([]byte, 1))
				cancel(gone)
				c.Read(make([]byte, 1<<20))
			})
		}
		start := time.Now()
		err := traffic.Echo(ctx, dial, traffic.EchoConfig{Network: network, Timeout: time.Hour})
		failure(t, err, gone, "echo "+network+": the machine is gone; ")
		assert.Less(t, time.Since(start), 5*time.Second)

		err = traffic.Echo(ctx, dial, traffic.EchoConfig{Network: network})
		require.Error(t, err)
	}
}
