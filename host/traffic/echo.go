package traffic

import (
	"context"
	"fmt"
	"time"
)

// EchoConfig says what Echo sends. The zero value sends Payloads(1) over UDP, with
// 16 datagrams in flight, and allows no loss.
type EchoConfig struct {
	// Network is "udp" or "tcp", with an optional 4 or 6; empty means "udp".
	Network string

	// Payloads are sent in this order. Empty means Payloads(1), followed on TCP
	// by a block of 64 KiB.
	Payloads [][]byte

	// Window is the number of payloads in flight: sent and not yet answered. 0
	// means 16. 1 waits for each answer, as Zephyr's echo-client does.
	Window int

	// Timeout is the time after which an unanswered datagram counts as lost. A
	// TCP stream fails if it makes no progress for this time. 0 means 5 s, as in
	// echo-client.
	Timeout time.Duration

	// NoHalfClose makes Echo close a TCP connection after the last byte has come
	// back, and not half-close it before. It is for a service that does not answer
	// after a half-close. Echo ignores it on UDP.
	NoHalfClose bool

	// Resend is how often Echo sends a lost datagram again before it fails. Use
	// 0 on a path that must not lose datagrams. Echo ignores Resend on TCP.
	Resend int
}

// Echo sends every payload and compares every byte that comes back. A nil error
// means that all payloads came back, unaltered and no more often than sent.
//
// Datagrams may come back in any order. Echo matches them by content, because a
// payload of one byte has no room for a number. After the last answer, Echo listens
// for twice the time of the slowest answer, and for at least 10 ms, to notice a
// duplicate of the last datagram too. If Echo sends a datagram several times, it
// accepts as many answers.
//
// On TCP the payloads form one stream, which Echo compares byte by byte as it
// arrives. Echo half-closes the connection after the last payload, while up to
// Window payloads are in flight. Every byte must arrive, and then the server must
// end the stream. With NoHalfClose, the server must not end the stream by itself.
//
// The error says which payload differs, by its index, where it differs, and which
// payloads were in flight. It wraps ErrLost, ErrAltered or ErrDuplicate, or the
// socket's error, or the cause of ctx if ctx ended first.
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
