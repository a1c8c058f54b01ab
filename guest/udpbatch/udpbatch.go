// Package udpbatch receives and sends UDP datagrams many at a time, with one
// system call (recvmmsg, sendmmsg) for a batch of them and no allocation. Datagrams
// of one size to one peer that follow each other go through the kernel as one
// (see join.go) and arrive as what they were.
//
// It is for handlers of package socketservice, and for other users of
// non-blocking descriptors, who serve so many datagrams that a system call for
// each costs too much. It is not for blocking descriptors: its calls hide from
// Go's scheduler, which would stand still with them.
//
//	var batch = udpbatch.New(32, 1500)
//
//	func echo(ev *socketservice.Event) {
//		msgs, err := batch.Receive(int(ev.Fd))
//		if err != nil {
//			return // EAGAIN: there was none
//		}
//		batch.Send(int(ev.Fd), msgs)
//	}
package udpbatch

import (
	"encoding/binary"
	"net/netip"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"

	"guesthouse.example/guest/internal/rawcall"
)

// A Message is a datagram and the address that it came from or goes to. It may
// be copied.
type Message struct {
	// Data is the payload. What Receive returns is in the batch's memory; for
	// Send it may be anywhere.
	Data []byte

	// Truncated says that the datagram was longer than the batch's size. The
	// rest of it is lost.
	Truncated bool

	size uint32                // of the address
	addr unix.RawSockaddrInet6 // or, as it is longer, an IPv4 one
}

// Addr returns the address that the datagram came from or goes to. From a socket
// of both families, such as socketservice.ListenUDP's, an IPv4 address is
// ::ffff:a.b.c.d. A zone is the interface's number.
func (m *Message) Addr() netip.AddrPort {
	var port [2]byte
	binary.NativeEndian.PutUint16(port[:], m.addr.Port)
	p := binary.BigEndian.Uint16(port[:])
	if m.addr.Family == unix.AF_INET {
		in4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(&m.addr))
		return netip.AddrPortFrom(netip.AddrFrom4(in4.Addr), p)
	}
	a := netip.AddrFrom16(m.addr.Addr)
	if m.addr.Scope_id != 0 {
		a = a.WithZone(strconv.FormatUint(uint64(m.addr.Scope_id), 10))
	}
	return netip.AddrPortFrom(a, p)
}

// SetAddr sets where Send sends the message. An IPv4 socket wants an IPv4
// address, and an IPv6 socket an IPv6 one or ::ffff:a.b.c.d. A zone that is not
// a number is left out.
func (m *Message) SetAddr(to netip.AddrPort) {
	m.addr = unix.RawSockaddrInet6{Family: unix.AF_INET6}
	m.size = uint32(unsafe.Sizeof(m.addr))
	if to.Addr().Is4() {
		m.size = uint32(unsafe.Sizeof(unix.RawSockaddrInet4{}))
		in4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(&m.addr))
		in4.Family, in4.Addr = unix.AF_INET, to.Addr().As4()
	} else {
		m.addr.Addr = to.Addr().As16()
		if scope, err := strconv.ParseUint(to.Addr().Zone(), 10, 32); err == nil {
			m.addr.Scope_id = uint32(scope)
		}
	}
	var port [2]byte
	binary.BigEndian.PutUint16(port[:], to.Port())
	m.addr.Port = binary.NativeEndian.Uint16(port[:])
}

// A Batch is memory for a number of datagrams. One batch can serve any number of
// sockets in turn, but only one goroutine at a time.
type Batch struct {
	size   int
	memory []byte
	msgs   []Message
	in     headers
	out    headers
	join   joiner

	sendmmsg func(fd int, h []mmsghdr) (int, unix.Errno) // the kernel's, except in tests
}

// headers are what the system calls read and write.
type headers struct {
	mmsg []mmsghdr
	iov  []unix.Iovec
}

// mmsghdr is the kernel's: its alignment in Go makes it so on 32-bit and on
// 64-bit machines.
type mmsghdr struct {
	unix.Msghdr
	n uint32
}

func newHeaders(count int) headers {
	h := headers{make([]mmsghdr, count), make([]unix.Iovec, count)}
	for i := range h.mmsg {
		h.mmsg[i].Iov = &h.iov[i]
		h.mmsg[i].SetIovlen(1)
	}
	return h
}

// New returns a batch for count datagrams of at most size bytes each. It panics
// if one of them is not positive.
func New(count, size int) *Batch {
	if count <= 0 || size <= 0 {
		panic("udpbatch: count and size must be positive")
	}
	b := &Batch{size: size, memory: make([]byte, count*size), msgs: make([]Message, count),
		in: newHeaders(count), out: newHeaders(count), join: newJoiner(count), sendmmsg: sendmmsg}
	for i := range b.msgs {
		h := &b.in.mmsg[i]
		h.Name = (*byte)(unsafe.Pointer(&b.msgs[i].addr))
		h.Namelen = uint32(unsafe.Sizeof(b.msgs[i].addr))
		b.in.iov[i].Base = &b.memory[i*size]
		b.in.iov[i].SetLen(size)
	}
	return b
}

// Receive takes the datagrams that wait on a socket, as many as the batch holds.
// They are valid until the next Receive. Without an error there is at least one;
// fewer than the batch holds means that no more waited. The error is the kernel's
// errno as it is, for it is part of every server's normal course: EAGAIN when
// none waits.
func (b *Batch) Receive(fd int) ([]Message, error) {
	n, errno := rawcall.Slice(unix.SYS_RECVMMSG, fd, b.in.mmsg, unix.MSG_DONTWAIT)
	if errno != 0 {
		return nil, errno
	}
	for i := range n {
		h, m := &b.in.mmsg[i], &b.msgs[i]
		m.Data = b.memory[i*b.size : i*b.size+int(h.n)]
		m.Truncated = h.Flags&unix.MSG_TRUNC != 0
		m.size = h.Namelen
		h.Namelen = uint32(unsafe.Sizeof(m.addr))
	}
	return b.msgs[:n], nil
}

// Send sends messages, of which a datagram that Receive returned goes back to its
// sender unless SetAddr says otherwise. It returns how many were sent; if that
// is not all, the error is the errno with which the kernel refused the next
// one: EAGAIN when the socket's buffer is full. The caller may drop that one
// and go on with the rest.
func (b *Batch) Send(fd int, msgs []Message) (sent int, err error) {
	for sent < len(msgs) {
		h := b.fill(fd, msgs[sent:])
		n, errno := b.sendmmsg(fd, h)
		if errno != 0 && joined(&h[0]) && mayRefuseJoined(errno) {
			// Is it the joining that is refused or the datagrams, perhaps for
			// their address? The first one alone tells.
			n, errno = b.sendmmsg(fd, b.fill(fd, msgs[sent:sent+1]))
			if errno == 0 {
				b.join.state = cannotJoin
			}
		}
		if errno != 0 {
			return sent, errno
		}
		for i := range n {
			sent += int(h[i].Iovlen)
		}
	}
	return sent, nil
}

// fill writes the headers for as many of the messages as there is room for.
func (b *Batch) fill(fd int, msgs []Message) []mmsghdr {
	msgs = msgs[:min(len(msgs), len(b.out.mmsg))]
	n := 0
	for i := 0; i < len(msgs); n++ {
		m, h := &msgs[i], &b.out.mmsg[n]
		h.Name, h.Namelen = (*byte)(unsafe.Pointer(&m.addr)), m.size
		h.Iov = &b.out.iov[i]
		count := b.join.run(fd, msgs[i:])
		h.SetIovlen(count)
		b.join.control(n, h, len(m.Data), count)
		for range count {
			v, data := &b.out.iov[i], msgs[i].Data
			v.Base = unsafe.SliceData(data)
			v.SetLen(len(data))
			i++
		}
	}
	return b.out.mmsg[:n]
}

func sendmmsg(fd int, h []mmsghdr) (int, unix.Errno) {
	return rawcall.Slice(unix.SYS_SENDMMSG, fd, h, unix.MSG_DONTWAIT)
}
