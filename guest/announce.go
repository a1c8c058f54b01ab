package guest

import (
	"encoding/binary"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// announcer returns what tells the network at which hardware address an interface has the
// IPv4 addresses of now (RFC 5227, ARP announcement). QEMU's user network asks for what it was
// not told before it delivers its first packet, and drops that packet where the answer takes
// more than 1 s, as it may on a busy host. The network of a machine that was restored was told
// nothing; all is made before, as that machine has no time to ask for its addresses. With an
// error, as of a kernel without packet sockets, what is returned does nothing.
func announcer(name string) (announce func() error, err error) {
	announce = func() error { return nil }
	packets, everybody, err := announcements(name)
	if err != nil {
		return announce, fmt.Errorf("interface %s: announce: %w", name, err)
	}
	// A datagram socket: the kernel writes the Ethernet header. It receives nothing.
	socket, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return announce, fmt.Errorf("interface %s: announce: %w", name, os.NewSyscallError("socket", err))
	}
	return func() error {
		for _, packet := range packets {
			if err := unix.Sendto(socket, packet, 0, everybody); err != nil {
				return fmt.Errorf("interface %s: announce: %w", name, os.NewSyscallError("sendto", err))
			}
		}
		return nil
	}, nil
}

// announcements returns the packets of an interface's IPv4 addresses, and whom they go to.
func announcements(name string) (packets [][]byte, everybody *unix.SockaddrLinklayer, err error) {
	card, err := net.InterfaceByName(name)
	if err != nil {
		return nil, nil, err
	}
	addrs, err := card.Addrs()
	if err != nil {
		return nil, nil, err
	}
	for _, addr := range addrs {
		if ip, ok := addr.(*net.IPNet); ok && ip.IP.To4() != nil {
			packets = append(packets, announcement(card.HardwareAddr, ip.IP.To4()))
		}
	}
	return packets, &unix.SockaddrLinklayer{
		Protocol: networkOrder(unix.ETH_P_ARP), Ifindex: card.Index, Halen: 6,
		Addr: [8]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
	}, nil
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
