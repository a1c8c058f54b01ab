package echo

import (
	"fmt"
	"net/netip"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"guesthouse.example/guest/socketservice"
)

// tcpBudget is how many buffers one handler call echoes at most.
const tcpBudget = 16

// A client is a TCP connection. It is read from only while nothing waits to be
// sent, so what waits never exceeds the buffer.
type client struct {
	fd     int
	addr   string
	buf    [BufferSize]byte
	r, w   int  // buf[r:w] waits to be sent
	writes bool // polled for POLLOUT, not POLLIN
}

// serveAccept is the handler of service_accept: it accepts one client.
func (s *Server) serveAccept(ev *socketservice.Event) {
	fd, sa, err := unix.Accept4(int(ev.Fd), unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch err {
	case nil:
		if s.resting != nil { // the shortage is over
			s.resting.Stop()
			s.resting = nil
		}
	case unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM:
		s.rest(err)
		return
	default:
		// The client has gone again (accept(2) lists the errors of the
		// network that come this way), or it was never there.
		return
	}
	// Echoes are answers: they are not held back for the client's
	// acknowledgement of the one before.
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	addr := address(sa)
	s.log.Info(fmt.Sprintf("Connection from %s (%d)", addr, fd))
	for i := range s.clients {
		if c := &s.clients[i]; c.fd < 0 {
			c.fd, c.addr, c.r, c.w, c.writes = fd, addr, 0, 0, false
			if err := s.poll(); err != nil {
				s.log.Error("Cannot register socket service handler", "error", err)
				c.close()
			}
			return
		}
	}
	s.log.Warn("Max capacity reached")
	turnAway(fd)
}

// rest takes the listener out of the poller, where it would fire without end,
// until a client leaves or the time is over. A lasting shortage is logged once:
// resting is not nil from the first failure to the next client.
func (s *Server) rest(err error) {
	if s.stopped {
		return
	}
	if s.resting == nil {
		s.log.Error(fmt.Sprintf("accept: %d. Retrying.", -int(err.(unix.Errno))))
		s.resting = time.AfterFunc(retryAccept, s.resume)
	} else {
		s.resting.Reset(retryAccept)
	}
	_ = s.accept.Unregister() // in its own handler: it does not wait
}

// resume has the listener polled again.
func (s *Server) resume() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.listenAgain()
}

func (s *Server) listenAgain() {
	if s.stopped || s.resting == nil {
		return
	}
	err := s.accept.Register([]unix.PollFd{{Fd: int32(s.listenFd), Events: unix.POLLIN}}, nil)
	if err != nil {
		s.log.Error("Cannot register socket service handler", "error", err)
	}
}

// turnAway closes a connection so that its client reads the end of the stream.
// Closing with unread bytes would send a reset, which can overtake the end.
func turnAway(fd int) {
	_ = unix.Shutdown(fd, unix.SHUT_WR)
	var sink [BufferSize]byte
	for range tcpBudget {
		if n, err := unix.Read(fd, sink[:]); n <= 0 && err != unix.EINTR {
			break
		}
	}
	_ = unix.Close(fd)
}

// serveTCP is the handler of service_tcp.
func (s *Server) serveTCP(ev *socketservice.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.client(int(ev.Fd))
	if c == nil {
		return
	}
	alive := c.serve(s)
	if alive && c.writes == (c.r < c.w) {
		return
	}
	if !alive {
		s.leave(c)
	}
	c.writes = c.r < c.w
	if err := s.poll(); err != nil {
		s.log.Error("Cannot register socket service handler", "error", err)
	}
}

func (s *Server) client(fd int) *client {
	for i := range s.clients {
		if s.clients[i].fd == fd {
			return &s.clients[i]
		}
	}
	return nil
}

// leave closes a client's connection. What it was sent is in the kernel's hands
// by then, and goes out before the end of the stream.
func (s *Server) leave(c *client) {
	addr := c.addr
	c.close()
	s.log.Info(fmt.Sprintf("Connection from %s closed", addr))
	s.listenAgain()
}

func (c *client) close() {
	_ = unix.Close(c.fd)
	c.fd, c.addr, c.r, c.w = -1, "", 0, 0
}

// poll registers the clients: those that have bytes to take for POLLOUT, the
// others for POLLIN.
func (s *Server) poll() error {
	if s.stopped {
		return nil
	}
	s.polled = s.polled[:0]
	for i := range s.clients {
		events := int16(unix.POLLIN)
		if s.clients[i].writes {
			events = unix.POLLOUT
		}
		s.polled = append(s.polled, unix.PollFd{Fd: int32(s.clients[i].fd), Events: events})
	}
	return s.tcp.Register(s.polled, nil)
}

// serve echoes until there is nothing to read, the client takes no more, or the
// budget is spent. It reports whether the connection lives.
func (c *client) serve(s *Server) bool {
	if alive := c.flush(s); !alive || c.r < c.w {
		return alive
	}
	for range tcpBudget {
		n, errno := c.receive()
		switch {
		case errno == unix.EAGAIN:
			return true
		case errno == unix.EINTR:
			continue
		case errno != 0:
			s.log.Error(fmt.Sprintf("recv: %d", -int(errno)))
			return false
		case n == 0:
			return false // and nothing waits to be sent
		}
		c.r, c.w = 0, n
		if alive := c.flush(s); !alive || c.r < c.w {
			return alive
		}
		if n < len(c.buf) {
			return true // that was all; the next read would say EAGAIN
		}
	}
	return true
}

// flush sends what waits, as far as the client takes it. It reports whether the
// connection lives.
func (c *client) flush(s *Server) bool {
	for c.r < c.w {
		n, errno := c.send()
		switch errno {
		case 0:
			c.r += n
		case unix.EAGAIN:
			return true
		case unix.EINTR:
		default:
			s.log.Error(fmt.Sprintf("sendto: %d", -int(errno)))
			return false
		}
	}
	return true
}

func (c *client) receive() (int, unix.Errno) {
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(c.fd),
		uintptr(unsafe.Pointer(&c.buf)), uintptr(len(c.buf)), 0, 0, 0)
	return int(n), errno
}

func (c *client) send() (int, unix.Errno) {
	n, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(c.fd),
		uintptr(unsafe.Pointer(&c.buf[c.r])), uintptr(c.w-c.r), unix.MSG_NOSIGNAL, 0, 0)
	return int(n), errno
}

// address is inet_ntop of the client's address: without a zone.
func address(sa unix.Sockaddr) string {
	if sa, ok := sa.(*unix.SockaddrInet6); ok {
		return netip.AddrFrom16(sa.Addr).String()
	}
	return "?"
}
