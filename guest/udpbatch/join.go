package udpbatch

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// The limits of joining.
const (
	// maxJoined is the smallest value that the kernel's UDP_MAX_SEGMENTS (linux/udp.h)
	// ever had.
	maxJoined = 64

	// maxJoinedBytes leaves room for the headers in the 65,535 bytes of a packet.
	maxJoinedBytes = 65000

	// maxSegment is the largest payload that every IPv6 link carries unfragmented
	// (1,280 bytes less 40 and 8). The kernel refuses to join datagrams that it would
	// have to fragment, and after a refusal Send joins nothing more. Without this limit,
	// one peer with large datagrams could cause that.
	maxSegment = 1232
)

// A joiner finds successive datagrams that one message with UDP_SEGMENT can carry (see
// udp(7)): to one peer and of one size, except that the last may be shorter. The
// message goes through the kernel once, and the kernel or the network card cuts it up
// at the end.
type joiner struct {
	state    joinState
	segments []segment // one per header
}

type joinState int

const (
	unknown joinState = iota // there were no datagrams to join yet
	canJoin
	cannotJoin // the kernel, the device or the socket's options forbid it
)

// segment is the control message. Go's alignment makes it unix.CmsgSpace(2) bytes long, on
// 32-bit and on 64-bit machines.
type segment struct {
	unix.Cmsghdr
	size uint16
}

func newJoiner(count int) joiner {
	j := joiner{segments: make([]segment, count)}
	for i := range j.segments {
		s := &j.segments[i]
		s.Level, s.Type = unix.SOL_UDP, unix.UDP_SEGMENT
		s.SetLen(unix.CmsgLen(int(unsafe.Sizeof(s.size))))
	}
	return j
}

// run returns how many of the messages, from the first one on, can be sent as one. It
// returns 1 if the second cannot be joined to the first.
func (j *joiner) run(fd int, msgs []Message) int {
	first := &msgs[0]
	size := len(first.Data)
	if len(msgs) == 1 || j.state == cannotJoin || size == 0 || size > maxSegment {
		return 1
	}
	n := 1
	for limit := min(len(msgs), maxJoined, maxJoinedBytes/size); n < limit; n++ {
		m := &msgs[n]
		// An empty datagram would disappear in a joined message.
		if len(m.Data) > size || len(m.Data) == 0 || !samePeer(m, first) {
			break
		}
		if len(m.Data) < size {
			n++
			break
		}
	}
	if n > 1 && j.state == unknown && !j.probe(fd) {
		return 1
	}
	return n
}

// probe asks the kernel whether it has the socket option. A kernel before 4.18 does not
// refuse the control message, but sends one long datagram.
func (j *joiner) probe(fd int) bool {
	j.state = canJoin
	if _, err := unix.GetsockoptInt(fd, unix.SOL_UDP, unix.UDP_SEGMENT); err != nil {
		j.state = cannotJoin
	}
	return j.state == canJoin
}

// control gives the nth header the control message for count datagrams.
func (j *joiner) control(n int, h *mmsghdr, size, count int) {
	if count > 1 {
		s := &j.segments[n]
		s.size = uint16(size)
		h.Control = (*byte)(unsafe.Pointer(s))
		h.SetControllen(unix.CmsgSpace(int(unsafe.Sizeof(s.size))))
	} else if joined(h) {
		h.Control = nil
		h.SetControllen(0)
	}
}

func joined(h *mmsghdr) bool { return h.Control != nil }

// mayRefuseJoined reports whether a kernel refuses joined messages with this errno: if
// the device computes no checksums or the socket wants none (EIO, EINVAL), if the
// socket does not support it (EOPNOTSUPP), or if the MTU is smaller (EINVAL, EMSGSIZE).
func mayRefuseJoined(errno unix.Errno) bool {
	switch errno {
	case unix.EIO, unix.EINVAL, unix.EOPNOTSUPP, unix.EMSGSIZE:
		return true
	}
	return false
}

// samePeer reports whether two messages have the same address. For an IPv4 address, it
// ignores the bytes after it, which an earlier IPv6 address may have left.
func samePeer(a, b *Message) bool {
	if a.addr.Port != b.addr.Port || a.size != b.size {
		return false
	}
	if a.addr.Family == unix.AF_INET {
		return *(*unix.RawSockaddrInet4)(unsafe.Pointer(&a.addr)) ==
			*(*unix.RawSockaddrInet4)(unsafe.Pointer(&b.addr))
	}
	return a.addr == b.addr
}
