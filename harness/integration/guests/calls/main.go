// Calls is a guest that connects and sends where a datagram on UDP port 4242 tells it to, as a hostile
// guest might. It is root and adds the routes that it lacks. It echoes TCP port 4242.
package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

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

// do carries out a command and sets said to its result. It leaves said unchanged for an unknown
// command, which is therefore echoed.
func do(self net.PacketConn, what, where string, said *string) error {
	switch what {
	case "tcp": // connects and sends hello
		conn, err := net.DialTimeout("tcp", where, 20*time.Second)
		if err != nil {
			return err
		}
		defer conn.Close()
		*said = "connected"
		_, err = io.WriteString(conn, "hello")
		return err
	case "udp": // sends hello from a new port
		conn, err := net.Dial("udp", where)
		if err != nil {
			return err
		}
		defer conn.Close()
		*said = "sent"
		_, err = io.WriteString(conn, "hello")
		return err
	case "from": // sends hello from the forwarded port
		to, err := net.ResolveUDPAddr("udp", where)
		if err != nil {
			return err
		}
		*said = "sent"
		_, err = self.WriteTo([]byte("hello"), to)
		return err
	case "route": // adds default routes through these gateways
		card, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		*said = "routed"
		for gateway := range strings.FieldsSeq(where) {
			err = errors.Join(err, netlink.RouteReplace(&netlink.Route{LinkIndex: card.Attrs().Index, Gw: net.ParseIP(gateway)}))
		}
		return err
	case "flood": // sends that many frames that no driver would send
		*said = "flooded"
		return flood(where)
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

// flood sends frames of all sizes: noise under known EtherTypes, and SYNs to random addresses.
func flood(count string) error {
	card, err := net.InterfaceByName("eth0")
	if err != nil {
		return err
	}
	socket, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(socket)
	n, err := strconv.Atoi(count)
	if err != nil {
		return err
	}
	random := rand.New(rand.NewPCG(1, 2))
	types := []uint16{0x0800, 0x86dd, 0x0806, 0x88f8, 0x8100, 0}
	for i := range n {
		frame := make([]byte, 14+random.IntN(1500))
		for j := range frame {
			frame[j] = byte(random.Uint32())
		}
		binary.BigEndian.PutUint16(frame[12:], types[i%len(types)])
		if len(frame) >= 54 && i%2 == 0 {
			ip := frame[14:]
			ip[0], ip[6], ip[7], ip[9] = 0x45, 0, 0, []byte{1, 6, 17}[random.IntN(3)]
			binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)))
			binary.BigEndian.PutUint16(ip[10:], 0)
			binary.BigEndian.PutUint16(ip[10:], sum(ip[:20]))
			ip[33] = 2 // SYN
		}
		if err := unix.Sendto(socket, frame, 0, &unix.SockaddrLinklayer{Ifindex: card.Index}); err != nil && !errors.Is(err, unix.ENOBUFS) {
			return os.NewSyscallError("sendto", err)
		}
	}
	return nil
}

// sum returns the checksum of a header whose checksum field is zero.
func sum(header []byte) uint16 {
	var sum uint32
	for i := 0; i < len(header); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(header[i:]))
	}
	return ^uint16(sum>>16 + sum)
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
