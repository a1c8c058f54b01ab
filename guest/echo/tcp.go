package echo

import (
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"guesthouse.example/guest/internal/rawcall"
	"guesthouse.example/guest/socketservice"
)

const (
	// acceptBudget is how many clients one handler call accepts at most.
	acceptBudget = 16

	// tcpBudget is how many buffers one handler call echoes at most.
	tcpBudget = 16
)

// A client is a TCP connection. The server reads from it only while rest is empty, so
// rest never exceeds the buffer. Only the handlers, which run one at a time, use the
// clients, and Stop when no handler runs any more.
type client struct {
	fd    int
	index int // in Server.clients
	addr  [16]byte
	rest  []byte // the unsent bytes; while there are any, the loop polls for POLLOUT
}

// serveAccept is the handler of service_accept.
func (s *Server) serveAccept(ev *socketservice.Event) {
	if lost(ev) {
		s.log.Error("The listener was closed")
		return
	}
	for range acceptBudget {
		if s.crowded() {
			s.rest(nil)
			return
		}
		fd, sa, err := unix.Accept4(int(ev.Fd), unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		switch err {
		case nil:
			s.rested()
			s.welcome(fd, sa)
		case unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM:
			s.rest(err)
			return
		case unix.EAGAIN:
			return
		default:
			// The client has gone: accept(2) lists the network errors
			// that are reported this way.
		}
	}
}

// welcome serves a new client, or turns it away.
func (s *Server) welcome(fd int, sa unix.Sockaddr) {
	// An echo must not wait until the client acknowledges the previous one.
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	c := &client{fd: fd, index: len(s.clients)}
	if sa, ok := sa.(*unix.SockaddrInet6); ok {
		c.addr = sa.Addr
	}
	s.log.Info(fmt.Sprintf("Connection from %s (%d)", c, fd))
	if len(s.clients) == s.tcp.Slots() {
		s.log.Warn("Max capacity reached")
		s.turnAway(fd)
		return
	}
	if err := s.tcp.Add(fd, unix.POLLIN, c); err != nil {
		s.log.Error("Cannot register socket service handler", "error", err)
		_ = unix.Close(fd)
		return
	}
	s.clients = append(s.clients, c)
}

// lost reports whether other code has closed the socket. Its number may belong to another
// file by now.
func lost(ev *socketservice.Event) bool { return ev.Revents&unix.POLLNVAL != 0 }

// rest takes the listener out of the poller, where it would fire all the time, until a
// connection ends or retryAccept has passed. A shortage is the error with which accept
// failed, or nil. The server logs a shortage once, until accept succeeds again.
func (s *Server) rest(shortage error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return
	}
	if shortage != nil && !s.short {
		s.short = true
		s.log.Error(fmt.Sprintf("accept: %d. Retrying.", -int(shortage.(unix.Errno))))
	}
	if s.resting == nil {
		s.resting = time.AfterFunc(retryAccept, s.resume)
	} else {
		s.resting.Reset(retryAccept)
	}
	_ = s.accept.Unregister() // in its own handler: it does not wait
}

// rested notes that accept has succeeded.
func (s *Server) rested() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.short = false
	if s.resting != nil {
		s.resting.Stop()
		s.resting = nil
	}
}

// resume makes the loop poll the listener again.
func (s *Server) resume() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped || s.resting == nil {
		return
	}
	// Not Register: it would wait for the handler, which takes the same lock.
	if err := s.accept.Add(s.listenFd, unix.POLLIN, nil); err != nil {
		s.log.Error("Cannot register socket service handler", "error", err)
	}
}

// serveTCP is the handler of service_tcp.
func (s *Server) serveTCP(ev *socketservice.Event) {
	c := ev.UserData.(*client)
	if lost(ev) {
		s.forget(c)
		return
	}
	waited := len(c.rest) > 0
	if !s.serve(c) {
		s.leave(c)
		return
	}
	waits := len(c.rest) > 0
	if waits == waited {
		return
	}
	events := int16(unix.POLLIN)
	if waits {
		events = unix.POLLOUT
	}
	if err := s.tcp.Add(c.fd, events, c); err != nil {
		s.log.Error("Cannot register socket service handler", "error", err)
		s.leave(c)
	}
}

// leave closes a client's connection. The kernel still delivers the sent bytes before the
// end of the stream.
func (s *Server) leave(c *client) {
	_ = s.tcp.Remove(c.fd)
	_ = unix.Close(c.fd)
	s.forget(c)
}

// forget makes room for another client.
func (s *Server) forget(c *client) {
	last := len(s.clients) - 1
	s.clients[c.index] = s.clients[last]
	s.clients[c.index].index = c.index
	s.clients[last] = nil
	s.clients = s.clients[:last]
	s.log.Info(fmt.Sprintf("Connection from %s closed", c))
	s.resume()
}

// serve echoes until there is nothing to read, the socket's send buffer is full, or the
// budget is spent. It reports whether the connection is still open.
func (s *Server) serve(c *client) bool {
	if len(c.rest) > 0 {
		n, alive := s.send(c.fd, c.rest)
		if c.rest = c.rest[n:]; len(c.rest) > 0 || !alive {
			return alive
		}
		c.rest = nil
	}
	for range tcpBudget {
		n, errno := rawcall.Slice(unix.SYS_RECVFROM, c.fd, s.stream[:], 0)
		switch {
		case errno == unix.EAGAIN:
			return true
		case errno != 0:
			s.log.Error(fmt.Sprintf("recv: %d", -int(errno)))
			return false
		case n == 0:
			return false // rest is empty, so nothing is lost
		}
		sent, alive := s.send(c.fd, s.stream[:n])
		if !alive {
			return false
		}
		if sent < n {
			// Only a client that does not read gets memory of its own.
			c.rest = append([]byte(nil), s.stream[sent:n]...)
			return true
		}
		if n < len(s.stream) {
			return true // the next read would return EAGAIN
		}
	}
	return true
}

// send sends as much as the socket's send buffer holds. It reports whether the connection is
// still open.
func (s *Server) send(fd int, b []byte) (sent int, alive bool) {
	for sent < len(b) {
		n, errno := rawcall.Slice(unix.SYS_SENDTO, fd, b[sent:], unix.MSG_NOSIGNAL)
		switch errno {
		case 0:
			sent += n
		case unix.EAGAIN:
			return sent, true
		default:
			s.log.Error(fmt.Sprintf("sendto: %d", -int(errno)))
			return sent, false
		}
	}
	return sent, true
}

// String returns inet_ntop of the client's address, without a zone.
func (c *client) String() string { return netip.AddrFrom16(c.addr).String() }
