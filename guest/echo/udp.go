package echo

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"

	"guesthouse.example/guest/socketservice"
)

// udpBudget is how many datagrams one handler call answers at most: enough that
// a burst costs one poll, not so many that other sockets wait long.
const udpBudget = 32

// A packet is a datagram and its sender. Its memory is used again for each: the
// kernel writes and reads it in place, where unix.Recvfrom would allocate an
// address for every datagram.
type packet struct {
	buf  [BufferSize]byte
	from unix.RawSockaddrInet6
	size uint32 // of the address; the kernel's socklen_t
}

// serveUDP is the handler of service_udp.
func (s *Server) serveUDP(ev *socketservice.Event) {
	fd := int(ev.Fd)
	for range udpBudget {
		n, errno := s.datagram.receive(fd)
		switch errno {
		case 0:
		case unix.EAGAIN:
			return
		case unix.EINTR:
			continue
		default:
			s.log.Error(fmt.Sprintf("recv: %d", -int(errno)))
			return
		}
		if errno := s.datagram.send(fd, n); errno != 0 {
			s.drop(errno)
		}
	}
}

// drop counts an answer that could not be sent. A full send buffer is no error,
// and a sender with an address that can not be answered must not be able to
// fill the console: the line appears for the 1st, 2nd, 4th, 8th... only.
func (s *Server) drop(errno unix.Errno) {
	n := s.dropped.Add(1)
	if errno != unix.EAGAIN && n&(n-1) == 0 {
		s.log.Error(fmt.Sprintf("sendto: %d", -int(errno)))
	}
}

// receive and send use raw system calls: without the scheduler's bookkeeping
// they cost less, and a non-blocking socket does not keep the thread.

func (p *packet) receive(fd int) (int, unix.Errno) {
	p.size = uint32(unsafe.Sizeof(p.from))
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd),
		uintptr(unsafe.Pointer(&p.buf)), uintptr(len(p.buf)), 0,
		uintptr(unsafe.Pointer(&p.from)), uintptr(unsafe.Pointer(&p.size)))
	return int(n), errno
}

func (p *packet) send(fd, n int) unix.Errno {
	_, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd),
		uintptr(unsafe.Pointer(&p.buf)), uintptr(n), 0,
		uintptr(unsafe.Pointer(&p.from)), uintptr(p.size))
	return errno
}
