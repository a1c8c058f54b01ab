package traffic_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"guesthouse.example/host/traffic"
)

func dialEcho(t testing.TB, network string) traffic.DialFunc {
	if network == "udp" {
		return dialUDP(t, plainUDP)
	}
	return dialTCP(t, plainTCP)
}

func TestLoad(t *testing.T) {
	for _, cfg := range []traffic.LoadConfig{
		{Requests: 1},
		{Requests: 1000, Clients: 4, Window: 16, Bytes: 1472},
		{Requests: 3, Clients: 8, Window: 16, Bytes: 8},
		{Requests: 1000, Network: "tcp"},
		{Requests: 2000, Network: "tcp", Clients: 4, Window: 32, Bytes: 8},
		{Requests: 200, Network: "tcp", Clients: 2, Window: 64, Bytes: 64 << 10}, // 8 MiB both ways at once
	} {
		dial := dialEcho(t, "udp")
		if cfg.Network == "tcp" {
			dial = dialEcho(t, "tcp")
		}
		cfg.Timeout = 20 * time.Second
		r, err := traffic.Load(t.Context(), dial, cfg)
		require.NoError(t, err)
		t.Log(r)
		assert.EqualValues(t, cfg.Requests, r.Sent)
		assert.EqualValues(t, cfg.Requests, r.Received)
		assert.Zero(t, r.Lost)
		assert.Zero(t, r.Errors)
		assert.Positive(t, r.P50)
		assert.True(t, r.P50 <= r.P90 && r.P90 <= r.P99 && r.P99 <= r.Max && r.Max <= r.Elapsed, "%v", r)
	}
}

func TestLoadDuration(t *testing.T) {
	for _, network := range []string{"udp", "tcp"} {
		cfg := traffic.LoadConfig{Network: network, Clients: 2, Window: 4, Duration: 100 * time.Millisecond}
		start := time.Now()
		r, err := traffic.Load(t.Context(), dialEcho(t, network), cfg)
		require.NoError(t, err)
		assert.GreaterOrEqual(t, time.Since(start), cfg.Duration)
		assert.Equal(t, r.Sent, r.Received+r.Lost)
		assert.Positive(t, r.Received)
		assert.InDelta(t, float64(r.Received)/r.Elapsed.Seconds(), r.Rate(), 1e-6)
	}
}

// The measured latency is that of the server, which answers 20 ms after the request.
func TestLoadLatency(t *testing.T) {
	const delay = 20 * time.Millisecond
	slow := func(_ int, b []byte) [][]byte {
		<-time.After(delay)
		return [][]byte{b}
	}
	r, err := traffic.Load(t.Context(), dialUDP(t, slow), traffic.LoadConfig{Requests: 5, Timeout: 10 * time.Second})
	require.NoError(t, err)
	assert.GreaterOrEqual(t, r.P50, delay)
	assert.GreaterOrEqual(t, r.Elapsed, 5*delay)
	assert.LessOrEqual(t, r.Rate(), 50.0)

	// Of three in flight at once the last waits for the two before it.
	r, err = traffic.Load(t.Context(), dialUDP(t, slow), traffic.LoadConfig{Requests: 3, Window: 3, Timeout: 10 * time.Second})
	require.NoError(t, err)
	assert.GreaterOrEqual(t, r.Max, 3*delay)
}

func TestLoadLost(t *testing.T) {
	tenth := func(n int, b []byte) [][]byte {
		if n%10 == 9 {
			return nil
		}
		return [][]byte{b}
	}
	r, err := traffic.Load(t.Context(), dialUDP(t, tenth), traffic.LoadConfig{
		Requests: 100, Clients: 2, Window: 20, Timeout: 100 * time.Millisecond,
	})
	require.NoError(t, err, "lost datagrams are counted, not an error")
	assert.EqualValues(t, 100, r.Sent)
	assert.EqualValues(t, 90, r.Received)
	assert.EqualValues(t, 10, r.Lost)

	r, err = traffic.Load(t.Context(), dialUDP(t, silentUDP), traffic.LoadConfig{Requests: 8, Window: 4, Timeout: 30 * time.Millisecond})
	require.NoError(t, err)
	assert.EqualValues(t, 8, r.Lost)
	assert.Zero(t, r.Rate())
	assert.Zero(t, r.P99)
}

func TestLoadUDPFaults(t *testing.T) {
	for _, test := range []struct {
		name           string
		serve          udpServer
		kind           error
		received, lost int
		says           []string
	}{
		{"byte flipped", only(2, func(b []byte) [][]byte { b[40] ^= 0xff; return [][]byte{b} }), traffic.ErrAltered, 9, 1,
			[]string{"load udp: 1 errors, the first: client 0: request 2: altered: 1 of 64 bytes differ, first at offset 40: sent "}},
		{"number flipped", only(2, func(b []byte) [][]byte { b[0] ^= 0xff; return [][]byte{b} }), traffic.ErrAltered, 9, 1,
			[]string{"altered: an answer of 64 bytes to no request: ff 00 00 00 00 00 00 02"}},
		{"truncated", only(2, func(b []byte) [][]byte { return [][]byte{b[:63]} }), traffic.ErrAltered, 9, 1,
			[]string{"request 2: altered: truncated to the first 63 of 64 bytes"}},
		{"empty", only(2, func(b []byte) [][]byte { return [][]byte{{}} }), traffic.ErrAltered, 9, 1,
			[]string{"altered: an answer of 0 bytes to no request"}},
		{"duplicated", only(2, func(b []byte) [][]byte { return [][]byte{b, b} }), traffic.ErrDuplicate, 10, 0,
			[]string{"request 2: duplicate: a second answer, an answer after more than 100ms, or the answer to another client"}},
		{"mixed up", only(2, func(b []byte) [][]byte { copy(b[8:], make([]byte, 56)); return [][]byte{b} }), traffic.ErrAltered, 9, 1,
			[]string{"request 2: altered: "}},
	} {
		t.Run(test.name, func(t *testing.T) {
			r, err := traffic.Load(t.Context(), dialUDP(t, test.serve), traffic.LoadConfig{Requests: 10, Timeout: 100 * time.Millisecond})
			failure(t, err, test.kind, test.says...)
			assert.EqualValues(t, 1, r.Errors)
			assert.EqualValues(t, 10, r.Sent)
			assert.EqualValues(t, test.received, r.Received)
			assert.EqualValues(t, test.lost, r.Lost)
		})
	}
}

// A request whose answer is late counts as lost, and the answer does not count for another one.
func TestLoadUDPLate(t *testing.T) {
	var held []byte
	late := func(n int, b []byte) [][]byte {
		if n == 0 {
			held = b
			return nil
		}
		if n == 1 {
			return [][]byte{held, b}
		}
		return [][]byte{b}
	}
	r, err := traffic.Load(t.Context(), dialUDP(t, late), traffic.LoadConfig{Requests: 3, Timeout: 100 * time.Millisecond})
	failure(t, err, traffic.ErrDuplicate, "request 0: ")
	assert.EqualValues(t, 2, r.Received)
	assert.EqualValues(t, 1, r.Lost)
	assert.EqualValues(t, 1, r.Errors)
}

func TestLoadTCPFaults(t *testing.T) {
	over := make(chan struct{})
	for _, test := range []struct {
		name        string
		serve       func(*net.TCPConn)
		kind        error
		says        []string
		least, most int64 // requests that were answered
	}{
		{"byte flipped", altered(func(n int, b byte) []byte {
			if n == 200 {
				b ^= 0xff
			}
			return []byte{b}
		}), traffic.ErrAltered, []string{"request 3: altered: 1 of 64 bytes differ, first at offset 8: sent "}, 3, 3},
		{"closed", func(c *net.TCPConn) { io.CopyN(c, c, 200); c.CloseWrite(); io.Copy(io.Discard, c) }, traffic.ErrLost,
			[]string{"load tcp: 1 errors, the first: client 0: request 3: lost: server ended the stream after 8 of 64 bytes; 2 requests in flight"}, 3, 3},
		{"out of order", func(c *net.TCPConn) {
			both := make([]byte, 128)
			io.ReadFull(c, both)
			c.Write(append(both[64:], both[:64]...))
			io.Copy(io.Discard, c)
		}, traffic.ErrAltered, []string{"client 0: request 0: altered: 56 of 64 bytes differ, first at offset 7: sent 00 "}, 0, 0},
		{"stalled", func(c *net.TCPConn) { io.CopyN(c, c, 200); <-over }, traffic.ErrLost,
			[]string{"request 3: lost: 8 of 64 bytes came back in 200ms; 2 requests in flight"}, 3, 3},
		{"reset", func(c *net.TCPConn) { io.CopyN(c, c, 256); c.SetLinger(0) }, syscall.ECONNRESET,
			[]string{"load tcp: 1 errors, the first: client 0: "}, 0, 4}, // a reset takes with it what was not read
	} {
		t.Run(test.name, func(t *testing.T) {
			over = make(chan struct{})
			dial := dialTCP(t, test.serve)
			r, err := traffic.Load(t.Context(), dial, traffic.LoadConfig{
				Network: "tcp", Requests: 10, Window: 2, Timeout: 200 * time.Millisecond,
			})
			close(over)
			failure(t, err, test.kind, test.says...)
			assert.EqualValues(t, 1, r.Errors)
			assert.Equal(t, r.Sent, r.Received+r.Lost)
			assert.LessOrEqual(t, test.least, r.Received)
			assert.LessOrEqual(t, r.Received, test.most)
			assert.LessOrEqual(t, r.Received+1, r.Sent)
		})
	}
}

// One client's connection fails, and the others take over its requests.
func TestLoadOthersGoOn(t *testing.T) {
	var accepted atomic.Int64
	failed := make(chan struct{})
	serve := func(c *net.TCPConn) {
		if accepted.Add(1) == 4 {
			// It has a request by then, which no other server will answer.
			io.ReadFull(c, make([]byte, 64))
			close(failed)
			return
		}
		<-failed // else the others could be done before its client begins
		plainTCP(c)
	}
	r, err := traffic.Load(t.Context(), dialTCP(t, serve), traffic.LoadConfig{
		Network: "tcp", Clients: 4, Requests: 300, Timeout: 30 * time.Second,
	})
	require.Error(t, err)
	assert.ErrorContains(t, err, "load tcp: 1 errors, the first: client ")
	assert.EqualValues(t, 300, r.Sent)
	assert.EqualValues(t, 299, r.Received)
	assert.EqualValues(t, 1, r.Lost)
}

func TestLoadContext(t *testing.T) {
	gone := errors.New("the machine is gone")
	for _, network := range []string{"udp", "tcp"} {
		ctx, cancel := context.WithCancelCause(t.Context())
		dial := dialUDP(t, func(n int, b []byte) [][]byte {
			if n == 10 {
				cancel(gone)
				return nil
			}
			return [][]byte{b}
		})
		if network == "tcp" {
			dial = dialTCP(t, func(c *net.TCPConn) {
				io.CopyN(c, c, 640)
				c.Read(make([]byte, 1)) // sent after the tenth answer arrived
				cancel(gone)
				io.Copy(io.Discard, c)
			})
		}
		start := time.Now()
		r, err := traffic.Load(ctx, dial, traffic.LoadConfig{Network: network, Requests: 1000, Timeout: time.Hour})
		failure(t, err, gone, "load "+network+": ended early: the machine is gone")
		assert.Less(t, time.Since(start), 5*time.Second)
		assert.EqualValues(t, 10, r.Received)
		assert.EqualValues(t, 11, r.Sent)
		assert.Zero(t, r.Lost)
		assert.Zero(t, r.Errors)

		_, err = traffic.Load(ctx, dial, traffic.LoadConfig{Network: network, Clients: 3})
		require.ErrorContains(t, err, "load "+network+": dial client 0 of 3: ")
	}
}

func TestLoadRefused(t *testing.T) {
	_, err := traffic.Load(t.Context(), nil, traffic.LoadConfig{Network: "unix"})
	assert.EqualError(t, err, `load: unknown network "unix": use udp or tcp`)
	_, err = traffic.Load(t.Context(), nil, traffic.LoadConfig{Bytes: 7})
	assert.EqualError(t, err, "load udp: requests of 7 bytes: the minimum is 8")
}

// All requests of a Load differ: their numbers count up, and the bytes after the number
// differ from one request to the next.
func TestLoadRequestsDiffer(t *testing.T) {
	var last []byte
	var next atomic.Uint64
	check := func(_ int, b []byte) [][]byte {
		if binary.BigEndian.Uint64(b) == next.Load() && (last == nil || !bytes.Equal(b[8:], last[8:])) {
			next.Add(1)
		}
		last = b
		return [][]byte{b}
	}
	r, err := traffic.Load(t.Context(), dialUDP(t, check), traffic.LoadConfig{Requests: 600})
	require.NoError(t, err)
	assert.EqualValues(t, r.Sent, next.Load())
}

func TestResult(t *testing.T) {
	r := traffic.Result{
		Network: "udp", Clients: 4, Window: 16, Bytes: 64, Sent: 1000, Received: 998, Lost: 2, Errors: 0,
		Elapsed: 500 * time.Millisecond,
		P50:     1500, P90: 20 * time.Microsecond, P99: 1234567, Max: 2 * time.Second,
	}
	assert.Equal(t, "udp, 4 clients, window 16, 64 bytes: 1000 sent, 998 received, 2 lost, 0 errors in 500ms, 1996/s; "+
		"latency p50 1.5µs, p90 20µs, p99 1.23ms, max 2s", r.String())
	b, err := json.Marshal(&r)
	require.NoError(t, err)
	assert.Equal(t, `{"network":"udp","clients":4,"window":16,"bytes":64,"sent":1000,"received":998,"lost":2,"errors":0,`+
		`"elapsed_s":0.5,"rate_per_s":1996,"p50_us":1.5,"p90_us":20,"p99_us":1234.567,"max_us":2000000}`, string(b))
}

func BenchmarkLoad(b *testing.B) {
	for _, network := range []string{"udp", "tcp"} {
		b.Run(network, func(b *testing.B) {
			b.ReportAllocs()
			r, err := traffic.Load(b.Context(), dialEcho(b, network), traffic.LoadConfig{Network: network, Requests: b.N, Clients: 2, Window: 8})
			require.NoError(b, err)
			b.ReportMetric(r.Rate(), "req/s")
			b.ReportMetric(float64(r.P99)/1e3, "p99-us")
		})
	}
}
