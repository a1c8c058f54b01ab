// Pinger is the echo guest with one more service: on TCP port 4243 it takes an IPv6 address and pings it. U-root's own
// ping reaches no other machine over IPv6, because it binds its socket to ::1.
package main

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv6"

	"guesthouse.example/guest"
	"guesthouse.example/guest/echo"
)

var server = echo.New(echo.Config{})

func main() { guest.Main(setup) }

func setup() error {
	l, err := net.Listen("tcp", ":4243")
	if err != nil {
		return err
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			address, err := bufio.NewReader(c).ReadString('\n')
			if err == nil {
				err = ping(strings.TrimSpace(address))
			}
			fmt.Fprintln(c, err)
			c.Close()
		}
	}()
	return server.Start()
}

// ping sends an echo request every second until its answer comes.
func ping(address string) error {
	to, err := net.ResolveIPAddr("ip6", address)
	if err != nil {
		return err
	}
	c, err := icmp.ListenPacket("ip6:ipv6-icmp", "::")
	if err != nil {
		return err
	}
	defer c.Close()
	id := os.Getpid() & 0xffff
	request, err := (&icmp.Message{Type: ipv6.ICMPTypeEchoRequest, Body: &icmp.Echo{ID: id, Seq: 1, Data: []byte(address)}}).Marshal(nil)
	if err != nil {
		return err
	}
	buf := make([]byte, 1500)
	for end := time.Now().Add(time.Minute); time.Now().Before(end); {
		if _, err := c.WriteTo(request, to); err != nil {
			return err
		}
		c.SetReadDeadline(time.Now().Add(time.Second))
		for {
			n, from, err := c.ReadFrom(buf)
			if err != nil {
				break // ask again
			}
			m, err := icmp.ParseMessage(ipv6.ICMPTypeEchoReply.Protocol(), buf[:n])
			if err != nil || m.Type != ipv6.ICMPTypeEchoReply {
				continue
			}
			if reply, ok := m.Body.(*icmp.Echo); ok && reply.ID == id && string(reply.Data) == address && from.(*net.IPAddr).IP.Equal(to.IP) {
				return nil
			}
		}
	}
	return fmt.Errorf("%s does not answer", address)
}
