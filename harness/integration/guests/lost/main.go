// Lost is a guest that thinks it is the year 2001 until somebody sets its clock.
// To a datagram it answers with its clock in nanoseconds since 1970, random bytes
// and its boot identity.
package main

import (
	"crypto/rand"
	"fmt"
	"net"
	"time"

	"golang.org/x/sys/unix"

	"guesthouse.example/guest"
)

func main() {
	guest.Main(func() error {
		wrong := unix.NsecToTimespec(time.Date(2001, 1, 1, 0, 0, 0, 0, time.UTC).UnixNano())
		if err := unix.ClockSettime(unix.CLOCK_REALTIME, &wrong); err != nil {
			return err
		}
		conn, err := net.ListenPacket("udp", ":4242")
		if err != nil {
			return err
		}
		go serve(conn)
		return nil
	})
}

func serve(conn net.PacketConn) {
	for {
		_, from, err := conn.ReadFrom(make([]byte, 1))
		if err != nil {
			return
		}
		conn.WriteTo(fmt.Appendf(nil, "%d %s %s", time.Now().UnixNano(), rand.Text(), guest.BootID()), from)
	}
}
