package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

// A Network is what the harness tells a guest about the networks that its cards are on.
type Network struct {
	Name  string // the machine's
	Cards []Card
}

// A Card is a network card of the machine.
type Card struct {
	MAC       [6]byte
	Addresses []netip.Prefix
	Hosts     []netip.Addr // the host's addresses on the card's network, which are also the name server's
}

const (
	maxCards     = 8
	maxAddresses = 16 // of a card, and of its hosts
	maxName      = 63 // bytes
)

// Encode returns the payload.
func (n Network) Encode() []byte {
	b := append([]byte{byte(len(n.Name))}, n.Name...)
	b = append(b, byte(len(n.Cards)))
	for _, c := range n.Cards {
		b = append(b, c.MAC[:]...)
		b = append(b, byte(len(c.Addresses)))
		for _, a := range c.Addresses {
			b = append(appendAddr(b, a.Addr()), byte(a.Bits()))
		}
		b = append(b, byte(len(c.Hosts)))
		for _, a := range c.Hosts {
			b = appendAddr(b, a)
		}
	}
	return b
}

func appendAddr(b []byte, a netip.Addr) []byte {
	return append(append(b, byte(a.BitLen()/8)), a.AsSlice()...)
}

// Check refuses a Network that has no encoding.
func (n Network) Check() error {
	if len(n.Name) > maxName || len(n.Cards) > maxCards {
		return fmt.Errorf("network: a name of %d bytes and %d cards: the limits are %d and %d", len(n.Name), len(n.Cards), maxName, maxCards)
	}
	for _, c := range n.Cards {
		if len(c.Addresses) > maxAddresses || len(c.Hosts) > maxAddresses {
			return fmt.Errorf("network: a card has more than %d addresses", maxAddresses)
		}
		for _, a := range c.Addresses {
			if !a.IsValid() || a.Addr().Zone() != "" {
				return fmt.Errorf("network: address %v", a)
			}
		}
		if slices.ContainsFunc(c.Hosts, func(a netip.Addr) bool { return !a.IsValid() || a.Zone() != "" }) {
			return fmt.Errorf("network: hosts %v", c.Hosts)
		}
	}
	return nil
}

// A reader takes values from a payload. After an error all values are zero.
type reader struct {
	b      []byte
	failed bool
}

func (r *reader) take(n int) []byte {
	if r.failed || len(r.b) < n {
		r.failed = true
		return make([]byte, n)
	}
	taken := r.b[:n]
	r.b = r.b[n:]
	return taken
}

func (r *reader) number(most int) int {
	n := int(r.take(1)[0])
	if n > most {
		r.failed = true
		return 0
	}
	return n
}

func (r *reader) addr() netip.Addr {
	a, ok := netip.AddrFromSlice(r.take(r.number(16)))
	r.failed = r.failed || !ok
	return a
}

// DecodeNetwork decodes the payload of Configure.
func DecodeNetwork(b []byte) (n Network, err error) {
	r := reader{b: b}
	n.Name = string(r.take(r.number(maxName)))
	for range r.number(maxCards) {
		c := Card{MAC: [6]byte(r.take(6))}
		for range r.number(maxAddresses) {
			a := r.addr()
			prefix := netip.PrefixFrom(a, int(r.take(1)[0]))
			r.failed = r.failed || !prefix.IsValid()
			c.Addresses = append(c.Addresses, prefix)
		}
		for range r.number(maxAddresses) {
			c.Hosts = append(c.Hosts, r.addr())
		}
		n.Cards = append(n.Cards, c)
	}
	if r.failed || len(r.b) > 0 {
		return Network{}, errors.New("network: malformed payload")
	}
	return n, nil
}

// appendSized appends bytes after their number.
func appendSized(b, data []byte) []byte {
	return append(binary.BigEndian.AppendUint16(b, uint16(len(data))), data...)
}
