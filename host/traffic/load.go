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

	// Window is the number of requests in flight on each; 0 means 1.
	Window int

	// Bytes is the size of a request; 0 means 64, and 8 is the least, for the
	// number that each carries.
	Bytes int

	// Load stops sending after Requests (of all clients together) or after
	// Duration, whichever comes first; 0 means no such end, both 0 one second.
	Requests int
	Duration time.Duration

	// Timeout is how long after it was sent a request counts as lost; 0 means
	// 1 s. On UDP the next one then takes its place; a TCP connection ends,
	// as what follows on it can only be late.
	Timeout time.Duration
}

// Load sends requests to an echo server as fast as answers free the windows,
// compares every byte of every answer, and measures. All connections are
// dialled before the first request.
//
// It is a closed loop: while the server stalls no further requests fall due, so
// a stall shows in Max and in the rate more than in the quantiles. Compare
// results of one configuration with each other, not with a promise about
// arrivals at a fixed rate.
//
// The Result is valid whether or not there is an error. The error is nil when
// Errors is 0; lost datagrams alone are no error. Else it wraps the first of
// them (ErrLost, ErrAltered, ErrDuplicate, or the socket's error). If ctx ends
// before the load does, Load returns at once with what was measured and with
// ctx's cause. If a dial fails, nothing is sent.
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
		return result, fmt.Errorf("load %s: requests of %d bytes: the least is %d", network, cfg.Bytes, tagBytes)
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

// load is what the clients of one Load share.
type load struct {
	LoadConfig
	ctx    context.Context
	start  time.Time
	filler []byte // what follows the numbers

	taken     atomic.Uint64 // requests given out; their numbers count from 0
	sent      atomic.Int64
	lost      atomic.Int64
	latencies histogram

	lastAnswer atomic.Int64 // nanoseconds after start
	cut        atomic.Bool  // ctx ended while requests were due or in flight

	errors    atomic.Int64
	firstOnce sync.Once
	first     error
}

// take gives out the number of the next request, unless the load is at its end.
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

// fill makes the request of a number. The number selects the bytes that follow
// it, so that an answer put together from two requests is noticed.
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
