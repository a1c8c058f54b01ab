package traffic

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// tagBytes is the size of a request's number, its first bytes.
const tagBytes = 8

// LoadConfig says what Load sends. The zero value is one client on UDP, one
// request of 64 bytes at a time, for one second.
type LoadConfig struct {
	// Network is "udp" or "tcp", with an optional 4 or 6; empty means "udp".
	Network string

	// Clients is the number of connections; 0 means 1.
	Clients int

	// Window is the number of requests in flight on each connection; 0 means 1.
	Window int

	// Bytes is the size of a request. 0 means 64. The minimum is 8, because
	// each request carries its number.
	Bytes int

	// Load stops sending after Requests requests of all clients together, or
	// after Duration, whichever comes first. 0 means no limit. If both are 0,
	// Duration is one second.
	Requests int
	Duration time.Duration

	// Timeout is the time after which an unanswered request counts as lost; 0
	// means 1 s. On UDP the client then sends the next request. On TCP it closes
	// the connection, because all further answers would be late too.
	Timeout time.Duration
}

// Load sends requests to an echo server as fast as answers free the windows,
// compares every byte of every answer, and measures latencies and rate. It dials
// all connections before it sends the first request.
//
// Load is a closed loop: while the server stalls, Load sends no further requests. A
// stall therefore shows in Max and in the rate more than in the quantiles. Compare
// results of one configuration with each other; they say nothing about arrivals at
// a fixed rate.
//
// The Result is valid even with an error. The error is nil if Errors is 0; lost
// datagrams alone are not an error. Otherwise it wraps the first error: ErrLost,
// ErrAltered, ErrDuplicate, or the socket's. If ctx ends before the load does, Load
// returns at once, with the measurements so far and the cause of ctx. If a dial
// fails, Load sends nothing.
func Load(ctx context.Context, dial DialFunc, cfg LoadConfig) (Result, error) {
	network, stream, err := transport(cfg.Network)
	if err != nil {
		return Result{}, fmt.Errorf("load: %w", err)
	}
	cfg.Network = network
	cfg.Clients = max(cfg.Clients, 1)
	cfg.Window = max(cfg.Window, 1)
	if cfg.Bytes == 0 {
		cfg.Bytes = 64
	}
	if cfg.Requests <= 0 && cfg.Duration <= 0 {
		cfg.Duration = time.Second
	}
	if cfg.Timeout <= 0 {
		cfg.Timeout = time.Second
	}
	result := Result{Network: network, Clients: cfg.Clients, Window: cfg.Window, Bytes: cfg.Bytes}
	if cfg.Bytes < tagBytes {
		return result, fmt.Errorf("load %s: requests of %d bytes: the minimum is %d", network, cfg.Bytes, tagBytes)
	}

	l := &load{LoadConfig: cfg, ctx: ctx, filler: Bytes(1, cfg.Bytes+256)}
	clients := make([]*client, cfg.Clients)
	for i := range clients {
		conn, err := dial(ctx, network)
		if err != nil {
			return result, fmt.Errorf("load %s: dial client %d of %d: %w", network, i, cfg.Clients, err)
		}
		defer tie(ctx, conn)()
		clients[i] = &client{load: l, index: i, conn: conn, stream: stream, frame: make([]byte, cfg.Bytes), want: make([]byte, cfg.Bytes)}
	}

	l.start = time.Now()
	var wg sync.WaitGroup
	for _, c := range clients {
		wg.Go(c.run)
	}
	wg.Wait()

	result.Sent, result.Received, result.Lost = l.sent.Load(), l.latencies.total.Load(), l.lost.Load()
	result.Errors = l.errors.Load()
	result.Elapsed = time.Duration(l.lastAnswer.Load())
	result.P50, result.P90 = l.latencies.quantile(0.50), l.latencies.quantile(0.90)
	result.P99, result.Max = l.latencies.quantile(0.99), l.latencies.quantile(1)

	switch failed := result.Errors > 0; {
	case failed && l.cut.Load():
		return result, fmt.Errorf("load %s: ended early: %w; %d errors before, the first: %w",
			network, context.Cause(ctx), result.Errors, l.first)
	case failed:
		return result, fmt.Errorf("load %s: %d errors, the first: %w", network, result.Errors, l.first)
	case l.cut.Load():
		return result, fmt.Errorf("load %s: ended early: %w", network, context.Cause(ctx))
	}
	return result, nil
}

// load is shared by the clients of one Load.
type load struct {
	LoadConfig
	ctx    context.Context
	start  time.Time
	filler []byte // the bytes after the numbers

	taken     atomic.Uint64 // how many requests the clients have taken; they are numbered from 0
	sent      atomic.Int64
	lost      atomic.Int64
	latencies histogram

	lastAnswer atomic.Int64 // nanoseconds after start
	cut        atomic.Bool  // ctx ended while requests were due or in flight

	errors    atomic.Int64
	firstOnce sync.Once
	first     error
}

// take returns the number of the next request, or false at the end of the load.
func (l *load) take() (number uint64, ok bool) {
	if l.Duration > 0 && time.Since(l.start) >= l.Duration {
		return 0, false
	}
	if l.Requests > 0 && l.taken.Load() >= uint64(l.Requests) {
		return 0, false
	}
	if l.ctx.Err() != nil {
		l.cut.Store(true)
		return 0, false
	}
	number = l.taken.Add(1) - 1
	return number, l.Requests <= 0 || number < uint64(l.Requests)
}

// fill writes the request with a number. The number also selects the bytes that
// follow it, so that judge notices an answer that mixes two requests.
func (l *load) fill(frame []byte, number uint64) {
	binary.BigEndian.PutUint64(frame, number)
	copy(frame[tagBytes:], l.filler[number%251:])
}

func (l *load) fail(err error) {
	l.errors.Add(1)
	l.firstOnce.Do(func() { l.first = err })
}

func (l *load) answered(sent, now time.Time) {
	l.latencies.add(now.Sub(sent))
	at := int64(now.Sub(l.start))
	for old := l.lastAnswer.Load(); at > old && !l.lastAnswer.CompareAndSwap(old, at); {
		old = l.lastAnswer.Load()
	}
}
