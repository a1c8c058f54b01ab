// Lost is a guest that reports the values that a restored machine must not share with others: its time,
// its identity and its addresses. Its clock is in the year 2001 until the harness sets it. It echoes TCP
// port 4242 up to a zero byte and then closes the connection. It prints the numbered lines n0, n1 and
// so on, so that a lost line shows.
package main

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
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
		udp, err := net.ListenPacket("udp", ":4242")
		if err != nil {
			return err
		}
		tcp, err := net.Listen("tcp", ":4242")
		if err != nil {
			return err
		}
		guest.Event("set up")
		go answer(udp)
		go echo(tcp)
		go count()
		return nil
	})
}

// answer answers datagrams. The first word of a datagram is a command.
func answer(conn net.PacketConn) {
	buf := make([]byte, 1500)
	for {
		n, from, err := conn.ReadFrom(buf)
		if err != nil {
			return
		}
		what, arg, _ := strings.Cut(string(buf[:n]), " ")
		conn.WriteTo([]byte(do(what, arg)), from)
	}
}

func do(what, arg string) string {
	switch what {
	case "self":
		return self()
	case "timer": // of 100 ms
		begin := time.Now()
		time.AfterFunc(100*time.Millisecond, func() { guest.Event(fmt.Sprint("timer ", time.Since(begin).Nanoseconds())) })
	case "events": // that many
		var n int
		fmt.Sscan(arg, &n)
		go func() {
			for i := range n {
				guest.Event(fmt.Sprint("event ", i))
			}
		}()
	case "flood": // sends more than the harness keeps: 400 events of nearly 64 KiB
		long := strings.Repeat("x", 60<<10)
		for i := range 400 {
			guest.Event(fmt.Sprint(i, " ", long))
		}
		guest.Event("the last")
	case "dial": // an address, and send the boot identity there
		conn, err := net.DialTimeout("tcp", arg, time.Minute)
		if err != nil {
			return err.Error()
		}
		defer conn.Close()
		io.WriteString(conn, guest.BootID())
	}
	return "done"
}

// self returns the wall clock and the monotonic clock in nanoseconds, a random text, the boot
// identity, and the card's hardware address and IP addresses.
func self() string {
	now := time.Now()
	var up unix.Timespec
	unix.ClockGettime(unix.CLOCK_MONOTONIC, &up)
	card, err := net.InterfaceByName("eth0")
	if err != nil {
		return err.Error()
	}
	addrs, _ := card.Addrs()
	addrs = slices.DeleteFunc(addrs, func(a net.Addr) bool { return a.(*net.IPNet).IP.IsLinkLocalUnicast() }) // these arrive late
	return fmt.Sprint(now.UnixNano(), up.Nano(), " ", rand.Text(), " ", guest.BootID(), " ", card.HardwareAddr, " ", addrs)
}

func echo(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			buf := make([]byte, 1500)
			for {
				n, err := conn.Read(buf)
				if before, _, streams := bytes.Cut(buf[:n], []byte{1}); streams {
					conn.Write(before)
					stream(conn)
					return
				}
				text, _, ends := bytes.Cut(buf[:n], []byte{0})
				conn.Write(text)
				if err != nil || ends {
					return
				}
			}
		}()
	}
}

// stream reads and writes all it can, and reports the end of the writes.
func stream(conn net.Conn) {
	go io.Copy(io.Discard, conn)
	for {
		if _, err := conn.Write(make([]byte, 1500)); err != nil {
			guest.Event("the client has gone")
			return
		}
	}
}

func count() {
	for i := 0; ; i++ {
		fmt.Printf("n%d\n", i)
		time.Sleep(50 * time.Millisecond)
	}
}
