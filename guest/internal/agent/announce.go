package agent

import (
	"encoding/binary"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// An Announcer tells the network at which hardware addresses the machine has its IPv4
// addresses (RFC 5227, ARP announcement). QEMU's user network asks for what it was
// not told before it delivers its first packet, and drops that packet where the answer takes
// more than 1 s, as it may on a busy host. The network of a machine that was restored was told
// nothing; all is made before, as that machine has no time to ask for its addresses. The zero
// value announces nothing.
type Announcer struct {
	socket  int
	packets []packet
}

// Prepare takes the addresses of now.
func (n *Announcer) Prepare() (err error) {
	n.packets, err = announcements()
	if err == nil && len(n.packets) > 0 && n.socket == 0 {
		// A datagram socket: the kernel writes the Ethernet header. It receives nothing.
		n.socket, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		err = os.NewSyscallError("socket", err)
	}
	if err != nil {
		n.packets, n.socket = nil, 0 // as of a kernel without packet sockets
		return fmt.Errorf("announce the machine's addresses: %w", err)
	}
	return nil
}

// Announce sends the announcements.
func (n *Announcer) Announce() error {
	for _, p := range n.packets {
		if err := unix.Sendto(n.socket, p.text, 0, p.to); err != nil {
			return fmt.Errorf("announce the machine's addresses: %w", os.NewSyscallError("sendto", err))
		}
	}
	return nil
}

// A packet is an announcement and the interface that it goes to.
type packet struct {
	text []byte
	to   *unix.SockaddrLinklayer
}

// announcements returns those of all IPv4 addresses of the interfaces that are up and Ethernet.
func announcements() (packets []packet, err error) {
	cards, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	for _, card := range cards {
		if card.Flags&net.FlagUp == 0 || card.Flags&net.FlagLoopback != 0 || len(card.HardwareAddr) != 6 {
			continue
		}
		addrs, err := card.Addrs()
		if err != nil {
			return nil, err
		}
		everybody := &unix.SockaddrLinklayer{
			Protocol: networkOrder(unix.ETH_P_ARP), Ifindex: card.Index, Halen: 6,
			Addr: [8]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
		}
		for _, addr := range addrs {
			if ip, ok := addr.(*net.IPNet); ok && ip.IP.To4() != nil {
				packets = append(packets, packet{announcement(card.HardwareAddr, ip.IP.To4()), everybody})
			}
		}
	}
	return packets, nil
}

// announcement is a request for the sender's own address: RFC 826's packet, for Ethernet and
// IPv4.
func announcement(at net.HardwareAddr, ip net.IP) []byte {
	const ethernet, ipv4, request = 1, unix.ETH_P_IP, 1
	p := binary.BigEndian.AppendUint16(nil, ethernet)
	p = binary.BigEndian.AppendUint16(p, ipv4)
	p = append(p, byte(len(at)), byte(len(ip)))
	p = binary.BigEndian.AppendUint16(p, request)
	p = append(append(p, at...), ip...)
	return append(append(p, make([]byte, len(at))...), ip...)
}

func networkOrder(n uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, n))
}
