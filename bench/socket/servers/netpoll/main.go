// Netpoll is an echo server on netpoll with one poller. It serves only TCP.
package main

import (
	"context"
	"net"

	"github.com/cloudwego/netpoll"

	"guesthouse.example/bench/socket/internal/serve"
)

func main() {
	a := serve.Parse()
	err := netpoll.Configure(netpoll.Config{
		PollerNum: 1,
		// Serve each request where it is read. On one core, an echo takes one
		// and a half times as long if another goroutine serves the request. The
		// drawback is that a client that never reads stops all others, because
		// Flush waits.
		Runner: func(_ context.Context, f func()) { f() },
	})
	if err != nil {
		serve.Fail("configure", err)
	}
	listener, err := netpoll.CreateListener(a.Network, "127.0.0.1:0")
	if err != nil {
		serve.Fail("listen", err)
	}
	loop, err := netpoll.NewEventLoop(echo)
	if err != nil {
		serve.Fail("new event loop", err)
	}
	serve.Listening(listener.Addr().(*net.TCPAddr).Port)
	serve.Fail("serve", loop.Serve(listener))
}

// echo copies the input once, into the output's own buffer, and releases the input,
// as netpoll's guide describes.
func echo(_ context.Context, c netpoll.Connection) error {
	r, w := c.Reader(), c.Writer()
	in, err := r.Next(r.Len())
	if err != nil {
		return err
	}
	out, err := w.Malloc(len(in))
	if err != nil {
		return err
	}
	copy(out, in)
	if err := r.Release(); err != nil {
		return err
	}
	return w.Flush()
}
