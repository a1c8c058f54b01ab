package netstack

import (
	"sync"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// maxSegment is the size in bytes of the biggest packet that TCP gives to the card. It is less than the 64 KiB that
// the protocol allows, so that the guest can take a part of the packet while the stack prepares the next one.
const maxSegment = 32 << 10

// A burst is the frames of some packets.
type burst struct {
	bytes  []byte
	frames [][]byte // parts of bytes
}

var bursts = sync.Pool{New: func() any { return &burst{bytes: make([]byte, 0, 2*maxSegment)} }}

func (b *burst) reset() {
	clear(b.frames)
	b.bytes, b.frames = b.bytes[:0], b.frames[:0]
}

// last returns the newest frame.
func (b *burst) last() []byte { return b.frames[len(b.frames)-1] }

// add adds the frames of a packet, which has an Ethernet header. It divides a big segment of TCP into frames, and
// computes the checksum that the stack leaves to the card.
func (b *burst) add(pkt *stack.PacketBuffer) {
	view := pkt.ToView()
	defer view.Release()
	packet := view.AsSlice()
	gso := pkt.GSOOptions
	if gso.Type == stack.GSONone || !gso.NeedsCsum {
		b.append(packet, nil)
		return
	}
	link, network := len(pkt.LinkHeader().Slice()), len(pkt.NetworkHeader().Slice())
	headers := link + network + len(pkt.TransportHeader().Slice())
	data := packet[headers:]
	most := int(gso.MSS)
	if most == 0 {
		most = len(data) // the peer has not said what it takes; such a segment has no data
	}
	whole := header.TCP(packet[link+network:])
	for n, from := uint16(0), 0; ; n++ {
		to := min(from+most, len(data))
		frame := b.append(packet[:headers], data[from:to])
		tcp := header.TCP(frame[link+network:])
		tcp.SetSequenceNumber(whole.SequenceNumber() + uint32(from))
		if to < len(data) {
			tcp.SetFlags(uint8(whole.Flags() &^ (header.TCPFlagFin | header.TCPFlagPsh)))
		}
		var sum uint16 // of the addresses and the length
		if gso.Type == stack.GSOTCPv4 {
			ip := header.IPv4(frame[link:])
			ip.SetTotalLength(uint16(len(ip)))
			ip.SetID(ip.ID() + n)
			ip.SetChecksum(0)
			ip.SetChecksum(^ip.CalculateChecksum())
			sum = header.PseudoHeaderChecksum(header.TCPProtocolNumber, ip.SourceAddress(), ip.DestinationAddress(), uint16(len(tcp)))
		} else {
			ip := header.IPv6(frame[link:])
			ip.SetPayloadLength(uint16(len(ip) - header.IPv6MinimumSize))
			sum = header.PseudoHeaderChecksum(header.TCPProtocolNumber, ip.SourceAddress(), ip.DestinationAddress(), uint16(len(tcp)))
		}
		tcp.SetChecksum(0)
		tcp.SetChecksum(^checksum.Checksum(tcp, sum))
		if from = to; from == len(data) {
			return
		}
	}
}

// append adds a frame of two parts and returns it.
func (b *burst) append(head, data []byte) []byte {
	from := len(b.bytes)
	b.bytes = append(append(b.bytes, head...), data...)
	frame := b.bytes[from:]
	b.frames = append(b.frames, frame)
	return frame
}
