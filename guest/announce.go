package guest

import (
	"encoding/binary"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// An announcer tells the network at which hardware address an interface has its IPv4
// addresses (RFC 5227, ARP announcement). QEMU's user network asks for what it was not told
// before it delivers its first packet, and drops that packet where the answer takes more than
// 1 s, as it may on a busy host. The network of a machine that was restored was told nothing.
type announcer struct {
	socket    int
	everybody unix.SockaddrLinklayer
	packets   [][]byte // all made before: a restored machine has no time to ask for its addresses
}

func newAnnouncer(name string) (*announcer, error) {
	failed := func(err error) (*announcer, error) {
		return nil, fmt.Errorf("interface %s: announce: %w", name, err)
	}
	card, err := net.InterfaceByName(name)
	if err != nil {
		return failed(err)
	}
	addrs, err := card.Addrs()
	if err != nil {
		return failed(err)
	}
	a := &announcer{everybody: unix.SockaddrLinklayer{
		Protocol: networkOrder(unix.ETH_P_ARP), Ifindex: card.Index, Halen: 6,
		Addr: [8]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
	}}
	for _, addr := range addrs {
		if ip, ok := addr.(*net.IPNet); ok && ip.IP.To4() != nil {
			a.packets = append(a.packets, announcement(card.HardwareAddr, ip.IP.To4()))
		}
	}
	// A datagram socket: the kernel writes the Ethernet header. It receives nothing.
	a.socket, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return failed(os.NewSyscallError("socket", err))
	}
	return a, nil
}

func (a *announcer) announce() error {
	for _, packet := range a.packets {
		if err := unix.Sendto(a.socket, packet, 0, &a.everybody); err != nil {
			return fmt.Errorf("announce: %w", os.NewSyscallError("sendto", err))
		}
	}
	return nil
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
