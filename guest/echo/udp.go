package echo

import (
	"fmt"

	"golang.org/x/sys/unix"

	"guesthouse.example/guest/socketservice"
)

const (
	// udpBatch is how many datagrams one system call takes.
	udpBatch = 64

	// udpBudget is how many full batches one handler call answers at most:
	// enough that a burst costs one poll, not so many that others wait long.
	udpBudget = 2
)

// serveUDP is the handler of service_udp.
func (s *Server) serveUDP(ev *socketservice.Event) {
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
			sent, err := s.datagrams.Send(fd, msgs)
			if err == nil {
				break
			}
			s.drop(err)
			msgs = msgs[sent+1:]
		}
		if !full {
			return // that was all
		}
	}
}

// drop counts an answer that could not be sent. A full send buffer is no error,
// and a sender with an address that can not be answered must not be able to
// fill the console: the line appears for the 1st, 2nd, 4th, 8th... only.
func (s *Server) drop(err error) {
	n := s.dropped.Add(1)
	if err != unix.EAGAIN && n&(n-1) == 0 {
		s.log.Error(fmt.Sprintf("sendto: %d", -int(err.(unix.Errno))))
	}
}
