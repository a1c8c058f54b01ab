package lan

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"guesthouse.example/harness/lan/internal/netstack"
	"guesthouse.example/harness/lan/internal/services"
)

const (
	namePort = 53

	// maxNameClients bounds the TCP connections to the name service, and nameWithin how long one waits for a query.
	maxNameClients = 64
	nameWithin     = 10 * time.Second
)

// serveNames answers queries for names on port 53 of the host's addresses, over UDP and TCP. It is over when the
// host's stack is closed.
func (l *Lan) serveNames() error {
	for i, family := range []netstack.Family{netstack.IPv4, netstack.IPv6} {
		at := netip.AddrPortFrom(l.address[i].Addr(), namePort)
		packets, err := l.host.ListenUDP(family, at)
		if err != nil {
			return fmt.Errorf("lan: name service: %w", err)
		}
		streams, err := l.host.ListenTCP(family, at)
		if err != nil {
			return fmt.Errorf("lan: name service: %w", err)
		}
		l.names.Go(func() { l.answerPackets(packets) })
		l.names.Go(func() { l.acceptStreams(streams) })
	}
	return nil
}

// answerName returns the answer to a query, or nil.
func (l *Lan) answerName(query []byte) []byte {
	return services.AnswerName(query, func(name string) ([]netip.Addr, bool) {
		found := l.Lookup(name)
		return found, found != nil
	})
}

func (l *Lan) answerPackets(c net.PacketConn) {
	query := make([]byte, 1500)
	for {
		n, from, err := c.ReadFrom(query)
		if errors.Is(err, ErrClosed) {
			return
		}
		if err != nil {
			continue // an ICMP error of an earlier answer
		}
		if answer := l.answerName(query[:n]); answer != nil {
			c.WriteTo(answer, from)
		}
	}
}

func (l *Lan) acceptStreams(listener net.Listener) {
	clients := make(chan struct{}, maxNameClients)
	for {
		c, err := listener.Accept()
		if err != nil {
			return
		}
		select {
		case clients <- struct{}{}:
			l.names.Go(func() {
				l.answerStream(c)
				<-clients
			})
		default:
			c.Close()
		}
	}
}

// answerStream answers the queries of a connection. Each follows its length (RFC 1035, section 4.2.2).
func (l *Lan) answerStream(c net.Conn) {
	defer c.Close()
	head := make([]byte, 2)
	for {
		c.SetDeadline(time.Now().Add(nameWithin))
		if _, err := io.ReadFull(c, head); err != nil {
			return
		}
		query := make([]byte, binary.BigEndian.Uint16(head))
		if _, err := io.ReadFull(c, query); err != nil {
			return
		}
		answer := l.answerName(query)
		if answer == nil {
			return
		}
		if _, err := c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(answer))), answer...)); err != nil {
			return
		}
	}
}
