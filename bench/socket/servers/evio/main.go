// Evio is an echo server on evio with one event loop.
package main

import (
	"net"

	"github.com/tidwall/evio"

	"guesthouse.example/bench/socket/internal/serve"
)

func main() {
	a := serve.Parse()
	events := evio.Events{
		NumLoops: 1,
		Serving: func(s evio.Server) evio.Action {
			var ports []int
			for _, addr := range s.Addrs {
				switch addr := addr.(type) {
				case *net.UDPAddr:
					ports = append(ports, addr.Port)
				case *net.TCPAddr:
					ports = append(ports, addr.Port)
				}
			}
			serve.Listening(ports...)
			return evio.None
		},
		// Evio copies the answer, so the input need not be a copy too.
		Opened: func(evio.Conn) ([]byte, evio.Options, evio.Action) {
			return nil, evio.Options{ReuseInputBuffer: true}, evio.None
		},
		Data: func(_ evio.Conn, in []byte) ([]byte, evio.Action) { return in, evio.None },
	}
	var addrs []string
	for range a.Services {
		addrs = append(addrs, a.Network+"://127.0.0.1:0")
	}
	serve.Fail("serve", evio.Serve(events, addrs...))
}
