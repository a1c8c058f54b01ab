// Gnet is an echo server on gnet with one event loop.
package main

import (
	"fmt"
	"net"
	"os"

	"github.com/panjf2000/gnet/v2"
	"github.com/panjf2000/gnet/v2/pkg/logging"

	"guesthouse.example/bench/socket/internal/serve"
)

type server struct {
	gnet.BuiltinEventEngine
	port int
}

func (s *server) OnBoot(gnet.Engine) gnet.Action {
	serve.Listening(s.port)
	return gnet.None
}

func (s *server) OnTraffic(c gnet.Conn) gnet.Action {
	data, _ := c.Next(-1)
	_, _ = c.Write(data)
	return gnet.None
}

func main() {
	a := serve.Parse()
	port := freePort(a.Network)
	err := gnet.Run(&server{port: port}, fmt.Sprintf("%s://127.0.0.1:%d", a.Network, port),
		gnet.WithNumEventLoop(1),
		// With this option the one loop also accepts; otherwise gnet has a second loop for that.
		gnet.WithReusePort(true),
		// Without a log file, gnet logs to standard output.
		gnet.WithLogPath(os.DevNull), gnet.WithLogLevel(logging.ErrorLevel))
	serve.Fail("run", err)
}

// freePort finds a free port, because gnet does not report which port the kernel has chosen.
func freePort(network string) int {
	if network == "tcp" {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			serve.Fail("find a port", err)
		}
		defer l.Close()
		return l.Addr().(*net.TCPAddr).Port
	}
	c, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		serve.Fail("find a port", err)
	}
	defer c.Close()
	return c.LocalAddr().(*net.UDPAddr).Port
}
