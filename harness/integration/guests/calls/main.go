// Calls is a guest that goes where it is told on UDP port 4242, as one that is hostile would: it is
// root, and adds the routes that it lacks. What it gets on TCP port 4242 it sends back.
package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"github.com/vishvananda/netlink"

	"guesthouse.example/guest"
)

func main() {
	guest.Main(func() error {
		udp, err := net.ListenPacket("udp4", ":4242")
		if err != nil {
			return err
		}
		tcp, err := net.Listen("tcp", ":4242")
		if err != nil {
			return err
		}
		go answer(udp)
		go echo(tcp)
		return nil
	})
}

func answer(conn net.PacketConn) {
	buf := make([]byte, 64<<10)
	for {
		n, from, err := conn.ReadFrom(buf)
		if err != nil {
			return
		}
		what, where, _ := strings.Cut(string(buf[:n]), " ")
		said := string(buf[:n])
		if err := do(conn, what, where, &said); err != nil {
			said = err.Error()
		}
		conn.WriteTo([]byte(said), from)
	}
}

// do does what is asked for, and says in said how it went, or returns an error. It leaves said alone for
// what is unknown, which is an echo.
func do(self net.PacketConn, what, where string, said *string) error {
	switch what {
	case "tcp": // connects, and says hello there
		conn, err := net.DialTimeout("tcp", where, 20*time.Second)
		if err != nil {
			return err
		}
		defer conn.Close()
		*said = "connected"
		_, err = io.WriteString(conn, "hello")
		return err
	case "udp": // says hello there, from a new port
		conn, err := net.Dial("udp", where)
		if err != nil {
			return err
		}
		defer conn.Close()
		*said = "sent"
		_, err = io.WriteString(conn, "hello")
		return err
	case "from": // from the forwarded port
		to, err := net.ResolveUDPAddr("udp", where)
		if err != nil {
			return err
		}
		*said = "sent"
		_, err = self.WriteTo([]byte("hello"), to)
		return err
	case "route": // adds default routes by these gateways
		card, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		*said = "routed"
		for gateway := range strings.FieldsSeq(where) {
			err = errors.Join(err, netlink.RouteReplace(&netlink.Route{LinkIndex: card.Attrs().Index, Gw: net.ParseIP(gateway)}))
		}
		return err
	case "names":
		own, err := os.Hostname()
		if err != nil {
			return err
		}
		addrs, err := net.LookupHost(own)
		*said = fmt.Sprint(own, " ", addrs)
		return err
	}
	return nil
}

func echo(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			io.Copy(conn, conn)
			conn.Close()
		}()
	}
}
