// Netpoll is an echo server on netpoll with one poller. It serves TCP alone.
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
		// On one core an echo costs half as much again when each request is
		// handed to a goroutine instead of being served where it was read. The
		// price: a client that never reads would stop all others, as Flush waits.
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

// echo copies the input once, into the output's own buffer, and gives the input
// back: the two steps that netpoll's guide describes.
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
