// Package traffic drives an echo server from the outside: [Echo] proves that
// every byte comes back, [Load] measures how fast and how many do. It is for
// the tests and benchmarks of network services, in an emulated machine or not:
// all it knows of the server is a function that dials it.
//
// It is not a network test suite (the faults between it and the server are
// someone else's to inject), and Load is a closed loop that compares builds of
// one service, not a generator that holds an arrival rate.
//
// A machine of package harness and a plain address are dialled alike:
//
//	echoPort := func(ctx context.Context, network string) (net.Conn, error) {
//		return machine.Dial(ctx, network, 4242)
//	}
//	err := traffic.Echo(ctx, echoPort, traffic.EchoConfig{Network: "tcp"})
package traffic

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
)

// A DialFunc connects to the server under test. Network is the one of the
// configuration: "udp", "tcp", or either with a 4 or 6 appended. A "udp"
// connection must keep datagrams apart; a "tcp" connection must have
// CloseWrite, as [*net.TCPConn] has. Closing a connection must end its pending
// reads and writes. Echo and Load close every connection they get before they
// return.
type DialFunc func(ctx context.Context, network string) (net.Conn, error)

// What a failed Echo, or a Load that counted errors, found; for [errors.Is].
var (
	// ErrLost: bytes did not come back before the timeout, or the server
	// ended the stream without them.
	ErrLost = errors.New("lost")

	// ErrAltered: bytes came back that were not sent, or not in that order.
	ErrAltered = errors.New("altered")

	// ErrDuplicate: a datagram came back more often than it was sent.
	ErrDuplicate = errors.New("duplicate")
)

// transport checks a configured network. The empty one is "udp", as it is for
// Zephyr's echo-client.
func transport(network string) (name string, stream bool, err error) {
	if network == "" {
		return "udp", false, nil
	}
	switch strings.TrimRight(network, "46") {
	case "udp":
		return network, false, nil
	case "tcp":
		return network, true, nil
	}
	return "", false, fmt.Errorf("unknown network %q: use udp or tcp", network)
}

// tie closes conn as soon as ctx ends, which ends a pending read or write: a
// deadline would not do, because the next SetDeadline would undo it. The
// function returned closes conn and leaves nothing of the tie behind.
func tie(ctx context.Context, conn net.Conn) (untie func()) {
	done := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(done)
		conn.Close()
	})
	return func() {
		if !stop() {
			<-done
		}
		conn.Close()
	}
}
