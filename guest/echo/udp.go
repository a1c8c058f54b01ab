package echo

import (
	"fmt"

	"golang.org/x/sys/unix"

	"guesthouse.example/guest/socketservice"
)

const (
	// udpBatch is how many datagrams one system call takes.
	udpBatch = 64

	// udpBudget is how many full batches one handler call answers at most. With
	// more, a burst would cost fewer polls, but other sockets would wait longer.
	udpBudget = 2
)

// serveUDP is the handler of service_udp.
func (s *Server) serveUDP(ev *socketservice.Event) {
	if lost(ev) {
		s.log.Error("The UDP socket was closed")
		return
	}
	fd := int(ev.Fd)
	for range udpBudget {
		msgs, err := s.datagrams.Receive(fd)
		if err != nil {
			if err != unix.EAGAIN {
				s.log.Error(fmt.Sprintf("recv: %d", -int(err.(unix.Errno))))
			}
			return
		}
		full := len(msgs) == udpBatch
		for len(msgs) > 0 {
			whole := 0
			for whole < len(msgs) && !msgs[whole].Truncated {
				whole++
			}
			if whole == 0 {
				s.dropOversized()
				msgs = msgs[1:]
				continue
			}
			sent, err := s.datagrams.Send(fd, msgs[:whole])
			if err != nil {
				s.drop(err)
				sent++
			}
			msgs = msgs[sent:]
		}
		if !full {
			return // that was all
		}
	}
}

// drop counts an answer that could not be sent. A full send buffer does not count as an error.
func (s *Server) drop(err error) {
	s.dropped.Add(1)
	if err != unix.EAGAIN {
		s.refused++
		s.complain(s.refused, fmt.Sprintf("sendto: %d", -int(err.(unix.Errno))))
	}
}

// dropOversized counts a datagram that is too long for the buffer. The server does not answer it with
// a part of it.
func (s *Server) dropOversized() {
	s.dropped.Add(1)
	s.oversized++
	s.complain(s.oversized, fmt.Sprintf("Datagram of more than %d bytes dropped", BufferSize))
}

// complain counts the nth error of its kind for service_udp. It logs the 1st, 2nd, 4th, 8th and so on,
// so that a sender cannot fill the console.
func (s *Server) complain(n uint64, line string) {
	s.udp.CountErrors(1)
	if n&(n-1) == 0 {
		s.log.Error(line)
	}
}
