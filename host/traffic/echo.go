package traffic

import (
	"context"
	"fmt"
	"time"
)

// EchoConfig says what Echo sends. The zero value is the whole of Payloads
// over UDP, 16 datagrams in flight, none of which may be lost.
type EchoConfig struct {
	// Network is "udp" or "tcp", with an optional 4 or 6; empty means "udp".
	Network string

	// Payloads are sent in this order and not changed. None means
	// Payloads(1), on TCP followed by a block of 64 KiB.
	Payloads [][]byte

	// Window is the number of payloads sent and not yet answered; 0 means 16,
	// and 1 waits for each answer as Zephyr's echo-client does.
	Window int

	// Timeout is how long after it was sent a datagram counts as lost, and
	// how long a TCP stream may stand still; 0 means 5 s, echo-client's.
	Timeout time.Duration

	// Resend is how often a lost datagram is sent again before Echo gives
	// up: 0 on a path that must not lose any. TCP ignores it.
	Resend int
}

// Echo sends every payload and compares every byte that returns. A nil error
// means that all of them came back, unaltered and not more often than sent.
//
// Datagrams may return in any order and are matched by content, because a
// payload of one byte has no room for a number. After the last answer Echo
// listens on for twice the time of the slowest answer, but at least 10 ms, so
// that a duplicate of the last datagram is noticed too. An answer to each of
// several sends of one datagram is no duplicate.
//
// On TCP all payloads make one stream, compared byte by byte as it arrives. Echo
// half-closes after the last payload, while up to Window payloads are still
// on their way; every byte must arrive, and then the server must end the stream.
//
// The error says which payload differed, where, and what was still in flight.
// It wraps ErrLost, ErrAltered or ErrDuplicate; or the socket's error; or, when
// ctx ended first, ctx's cause. Payloads are named by their index.
func Echo(ctx context.Context, dial DialFunc, cfg EchoConfig) error {
	network, stream, err := transport(cfg.Network)
	if err != nil {
		return fmt.Errorf("echo: %w", err)
	}
	if len(cfg.Payloads) == 0 {
		cfg.Payloads = Payloads(1)
		if stream {
			cfg.Payloads = append(cfg.Payloads, Bytes(1, 64<<10))
		}
	}
	if cfg.Window <= 0 {
		cfg.Window = 16
	}
	if cfg.Timeout <= 0 {
		cfg.Timeout = 5 * time.Second
	}
	conn, err := dial(ctx, network)
	if err != nil {
		return fmt.Errorf("echo %s: dial: %w", network, err)
	}
	defer tie(ctx, conn)()
	run := echoUDP
	if stream {
		run = echoTCP
	}
	if err := run(ctx, conn, cfg); err != nil {
		return fmt.Errorf("echo %s: %w", network, err)
	}
	return nil
}
