// Package traffic tests an echo server from the outside: [Echo] checks that
// every byte comes back, and [Load] measures how fast the answers come and how
// many are lost. It is for tests and benchmarks of network services. The server
// may run in an emulated machine or elsewhere, because the caller passes a
// function that dials it.
//
// It is not a network test suite: it injects no faults between itself and the
// server. Load is a closed loop and serves to compare builds of one service. It
// does not generate arrivals at a fixed rate.
//
// A DialFunc reaches a machine of package harness as well as a plain address:
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

// A DialFunc connects to the server under test. The network is that of the
// configuration: "udp" or "tcp", with an optional 4 or 6. A "udp" connection
// must preserve the boundaries of datagrams. A "tcp" connection must have the
// method CloseWrite, as [*net.TCPConn] has. Closing a connection must end its
// pending reads and writes. Echo and Load close every connection before they
// return.
type DialFunc func(ctx context.Context, network string) (net.Conn, error)

// The errors of Echo and Load wrap one of these if the server is to blame.
var (
	// ErrLost says that bytes did not come back before the timeout, or that
	// the server ended the stream without them.
	ErrLost = errors.New("lost")

	// ErrAltered says that bytes came back that were not sent, or that were
	// sent in another order.
	ErrAltered = errors.New("altered")

	// ErrDuplicate says that a datagram came back more often than it was sent.
	ErrDuplicate = errors.New("duplicate")
)

// transport checks a configured network. An empty network is "udp", as in
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

// tie closes conn when ctx ends, and so ends a pending read or write. A deadline in
// the past would not do, because the next SetDeadline would replace it. The function
// untie closes conn and stops watching ctx.
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
