package agent

import (
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// An Announcer sends ARP announcements (RFC 5227) of the machine's IPv4 addresses. Without them,
// QEMU's user network sends an ARP request before it delivers its first packet. It drops the packet
// if the answer takes more than 1 s, as can happen on a busy host. A restored machine has a new
// network, which knows no address. Prepare makes the packets before the save, so that a restored
// machine need not look its addresses up. The zero value announces nothing.
type Announcer struct {
	socket  int
	packets []packet
}

// Prepare makes the announcements of the present addresses.
func (n *Announcer) Prepare() (err error) {
	n.packets, err = announcements()
	if err == nil && len(n.packets) > 0 && n.socket == 0 {
		// A datagram socket: the kernel writes the Ethernet header. It receives nothing.
		n.socket, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		err = os.NewSyscallError("socket", err)
	}
	if err != nil {
		n.packets, n.socket = nil, 0 // for example in a kernel without packet sockets
		return fmt.Errorf("announce the machine's addresses: %w", err)
	}
	return nil
}

// Announce sends the announcements. The system calls do not block, and Go's scheduler does not see them.
func (n *Announcer) Announce() error {
	for _, p := range n.packets {
		_, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(n.socket), uintptr(unsafe.Pointer(unsafe.SliceData(p.text))),
			uintptr(len(p.text)), 0, uintptr(unsafe.Pointer(p.to)), unix.SizeofSockaddrLinklayer)
		if errno != 0 {
			return fmt.Errorf("announce the machine's addresses: %w", os.NewSyscallError("sendto", errno))
		}
	}
	return nil
}

const (
	settleTick  = 10 * time.Millisecond
	settleTicks = 120 // more than the second that the kernel takes at most
)

// settle waits until the kernel has set the flag IFF_RUNNING of all network cards that have a carrier.
// It does so up to a second after the boot, and then makes IPv6 addresses and sends packets. Otherwise
// each restored machine would do this work again, just when its first packet comes.
func settle() {
	for range settleTicks {
		if settled() {
			return
		}
		time.Sleep(settleTick)
	}
}

func settled() bool {
	cards, err := net.Interfaces()
	if err != nil {
		return true
	}
	for _, card := range cards {
		if card.Flags&net.FlagUp == 0 || card.Flags&net.FlagRunning != 0 {
			continue
		}
		if carrier, err := os.ReadFile("/sys/class/net/" + card.Name + "/carrier"); err == nil && string(carrier) == "1\n" {
			return false
		}
	}
	return true
}

// A packet is an announcement and the interface that sends it.
type packet struct {
	text []byte
	to   *unix.RawSockaddrLinklayer
}

// announcements returns one packet for each IPv4 address of each Ethernet interface that is up.
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
		broadcast := &unix.RawSockaddrLinklayer{
			Family: unix.AF_PACKET, Protocol: networkOrder(unix.ETH_P_ARP), Ifindex: int32(card.Index), Halen: 6,
			Addr: [8]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
		}
		for _, addr := range addrs {
			if ip, ok := addr.(*net.IPNet); ok && ip.IP.To4() != nil {
				packets = append(packets, packet{announcement(card.HardwareAddr, ip.IP.To4()), broadcast})
			}
		}
	}
	return packets, nil
}

// announcement returns an ARP request (RFC 826) for the sender's own address, for Ethernet and IPv4.
func announcement(mac net.HardwareAddr, ip net.IP) []byte {
	const ethernet, ipv4, request = 1, unix.ETH_P_IP, 1
	p := binary.BigEndian.AppendUint16(nil, ethernet)
	p = binary.BigEndian.AppendUint16(p, ipv4)
	p = append(p, byte(len(mac)), byte(len(ip)))
	p = binary.BigEndian.AppendUint16(p, request)
	p = append(append(p, mac...), ip...)
	return append(append(p, make([]byte, len(mac))...), ip...)
}

func networkOrder(n uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, n))
}
