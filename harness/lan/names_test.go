package lan_test

import (
	"encoding/binary"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/dns/dnsmessage"

	"guesthouse.example/harness/lan"
)

func TestTheNameServiceKnowsTheMachines(t *testing.T) {
	l := newLan(t, lan.Config{})
	a := join(t, l, "a")
	join(t, l, "b")
	ask := func(dial func(netip.AddrPort) (net.Conn, error), server netip.Addr, name string, kind dnsmessage.Type) dnsmessage.Message {
		c, err := dial(netip.AddrPortFrom(server, 53))
		require.NoError(t, err)
		defer c.Close()
		q := dnsmessage.Message{Header: dnsmessage.Header{ID: 1},
			Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(name + "."), Type: kind, Class: dnsmessage.ClassINET}}}
		packed, err := q.Pack()
		require.NoError(t, err)
		head := 0
		if _, stream := c.(interface{ CloseWrite() error }); stream {
			head = 2 // the length of the message
			packed = append(binary.BigEndian.AppendUint16(nil, uint16(len(packed))), packed...)
		}
		_, err = c.Write(packed)
		require.NoError(t, err)
		require.NoError(t, c.SetReadDeadline(time.Now().Add(time.Minute)))
		answer := make([]byte, 1500)
		n, err := c.Read(answer)
		require.NoError(t, err)
		var m dnsmessage.Message
		require.NoError(t, m.Unpack(answer[head:n]))
		return m
	}
	dials := []func(netip.AddrPort) (net.Conn, error){a.DialUDP, func(to netip.AddrPort) (net.Conn, error) { return a.DialTCP(within(t), to) }}
	for _, server := range l.Lookup("host") {
		for _, dial := range dials {
			m := ask(dial, server, "b", dnsmessage.TypeA)
			require.Len(t, m.Answers, 1)
			require.Equal(t, [4]byte{192, 0, 2, 3}, m.Answers[0].Body.(*dnsmessage.AResource).A)
			require.Len(t, ask(dial, server, "host", dnsmessage.TypeAAAA).Answers, 1)
			require.Equal(t, dnsmessage.RCodeNameError, ask(dial, server, "nobody", dnsmessage.TypeA).RCode)
		}
	}
}
