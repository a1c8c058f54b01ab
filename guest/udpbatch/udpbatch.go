// Package udpbatch receives and sends batches of UDP datagrams, with one system call
// (recvmmsg, sendmmsg) for each batch and without allocation. Successive datagrams of
// one size to one peer go through the kernel as one message and arrive as separate
// datagrams.
//
// It is for handlers of package socketservice, and for other users of non-blocking
// descriptors, for which one system call per datagram is too slow. It is not for
// blocking descriptors: its system calls are hidden from Go's scheduler, and a call
// that blocks would hold up other goroutines.
//
//	var batch = udpbatch.New(32, 1500)
//
//	func echo(ev *socketservice.Event) {
//		msgs, err := batch.Receive(int(ev.Fd))
//		if err != nil {
//			return // EAGAIN: no datagram waits
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
	// Data is the payload. In a message from Receive, it is a part of the batch's
	// memory.
	Data []byte

	// Truncated says that the datagram was longer than the batch's size, and that
	// its end is lost.
	Truncated bool

	size uint32                // of the address
	addr unix.RawSockaddrInet6 // or an IPv4 address, which is shorter
}

// Addr returns the address that the datagram came from or goes to. On a socket of
// both families, such as socketservice.ListenUDP's, an IPv4 address is
// ::ffff:a.b.c.d. The zone is the interface's number.
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

// SetAddr sets the address to which Send sends the message. For an IPv4 socket it
// must be an IPv4 address, and for an IPv6 socket an IPv6 address or ::ffff:a.b.c.d.
// SetAddr ignores a zone that is not a number.
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

// A Batch holds the memory for a number of datagrams. It can serve any number of
// sockets in turn, but only one goroutine at a time.
type Batch struct {
	size   int
	memory []byte
	msgs   []Message
	in     headers
	out    headers
	join   joiner

	sendmmsg func(fd int, h []mmsghdr) (int, unix.Errno) // tests replace it
}

// headers are the structures that the system calls read and write.
type headers struct {
	mmsg []mmsghdr
	iov  []unix.Iovec
}

// mmsghdr has the layout of the kernel's struct mmsghdr. Go's alignment makes that
// true on 32-bit and on 64-bit machines.
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
// unless both are positive.
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

// Receive receives the datagrams that wait on a socket, at most as many as the batch
// holds. They are valid until the next Receive. Without an error it returns at least
// one. If it returns fewer than the batch holds, no more were waiting. The error is
// the kernel's bare errno. EAGAIN says that no datagram waits, which a server must
// expect.
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

// Send sends messages. A message from Receive goes back to its sender unless
// SetAddr has changed the address. Send returns how many messages it has sent. If
// that is not all, the error is the errno with which the kernel refused the next
// message: EAGAIN when the socket's buffer is full. The caller may drop that message
// and go on with the rest.
func (b *Batch) Send(fd int, msgs []Message) (sent int, err error) {
	for sent < len(msgs) {
		h := b.fill(fd, msgs[sent:])
		n, errno := b.sendmmsg(fd, h)
		if errno != 0 && joined(&h[0]) && mayRefuseJoined(errno) {
			// The kernel may have refused the joining, or the datagrams themselves,
			// for example because of their address. To find out, send the first alone.
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

// fill writes headers for as many of the messages as the batch holds.
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
