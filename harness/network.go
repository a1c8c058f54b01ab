package harness

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"guesthouse.example/harness/internal/qemu"
	"guesthouse.example/harness/internal/relay"
	"guesthouse.example/harness/internal/template"
	"guesthouse.example/internal/wire"
)

// A Network is a network for cards of machines, in place of QEMU's user network. The module
// guesthouse.example/harness/lan has one, and [Spec].Net names them.
type Network interface {
	// Attach gives a card of the machine with a name its place on the network. An empty name stands for one
	// that the network chooses.
	Attach(machine string) (Attachment, error)

	// String returns the network in the words of the flag -net of guesthouse run. The record holds them.
	String() string
}

// A RecordedNetwork is a network of a Spec that was read from a record, in the words of the flag -net. No machine
// boots on it: put a network that was made from the words in its place, as guesthouse run -spec does.
type RecordedNetwork string

func (n RecordedNetwork) String() string { return string(n) }

func (n RecordedNetwork) Attach(string) (Attachment, error) {
	return nil, fmt.Errorf("the network %q is that of a record: make one with package guesthouse.example/harness/lan, and put it into Spec.Net", string(n))
}

// An Attachment is the place of a machine's card on a Network.
type Attachment interface {
	Name() string              // of the machine
	MAC() net.HardwareAddr     // of the card
	Addresses() []netip.Prefix // of the card
	Hosts() []netip.Addr       // of this process on the network, where the name service is too
	String() string            // all of that, for the Result

	// Connect begins the exchange of frames with the card.
	Connect(Cable) error

	// Dial connects to a port of the guest.
	Dial(ctx context.Context, network string, port int) (net.Conn, error)

	// Connections returns a TCP connection between this process and the card's machine that is open, and one that is
	// about to open or to close, in words, or "" for each if there is none. No machine is saved with one.
	Connections() (open, transient string)

	// Close takes the card off the network. The connections of Dial then end with the error why.
	Close(why error) error
}

// A Cable leads to a network card.
type Cable struct {
	// Conn carries frames in both directions. Each follows its length, which is four bytes in network order.
	// The Attachment closes it.
	Conn net.Conn

	// Restored says that the guest may have sent frames under the hardware address of the machine that was
	// saved. They come before the first frame from the card's own address, and are to be dropped.
	Restored bool

	// Capture, if it is not nil, receives the frames as a pcapng file.
	Capture io.Writer
}

// checkNetworks refuses networks that do not go together with other fields.
func (s Spec) checkNetworks() error {
	switch {
	case len(s.Net) == 0:
		return nil
	case len(s.Net) > qemu.MaxCards:
		return fmt.Errorf("%d networks: a machine is on at most %d", len(s.Net), qemu.MaxCards)
	case s.Outbound != "" && s.Outbound != OutboundNone:
		return fmt.Errorf("outbound %q: a machine with Spec.Net reaches the machines on its networks and nothing else", string(s.Outbound))
	}
	for i, n := range s.Net {
		if n == nil {
			return fmt.Errorf("network %d is nil", i)
		}
	}
	return nil
}

// canTake returns why the guest of a template cannot take these places. A guest without an agent keeps its hardware
// addresses, so it can take places that have the same ones.
func (all attachments) canTake(t *template.Template) error {
	if t.Agent != nil || slices.Equal(all.cards(), t.Cards) {
		return nil
	}
	return fmt.Errorf("the template's guest has no agent to give its network cards their addresses: they have %v, and the networks gave %v", t.Cards, all.cards())
}

// attachments are the places of a machine's cards; nil if it is on QEMU's user network.
type attachments []Attachment

// attach gives the machine's cards their places. The machine has one name on all its networks.
func (p *plan) attach() (all attachments, err error) {
	name := p.spec.Name
	for _, n := range p.spec.Net {
		a, err := n.Attach(name)
		if err != nil {
			all.close(err)
			return nil, err
		}
		name = a.Name()
		all = append(all, a)
	}
	return all, nil
}

// close takes the cards off their networks.
func (all attachments) close(why error) (err error) {
	for _, a := range all {
		err = errors.Join(err, a.Close(why))
	}
	return err
}

// cards returns the hardware addresses for QEMU's command line.
func (all attachments) cards() (macs []string) {
	for _, a := range all {
		macs = append(macs, a.MAC().String())
	}
	return macs
}

// network returns what the guest is told about its networks.
func (all attachments) network() (n wire.Network, err error) {
	for _, a := range all {
		mac := a.MAC()
		if len(mac) != 6 {
			return n, fmt.Errorf("network of %s: hardware address %v: an Ethernet card's has 6 bytes", a.Name(), mac)
		}
		n.Name = a.Name()
		n.Cards = append(n.Cards, wire.Card{MAC: [6]byte(mac), Addresses: a.Addresses(), Hosts: a.Hosts()})
	}
	return n, n.Check()
}

// connections returns a TCP connection of this process with the machine that is open, and one that is about to open or
// to close, or "" for each.
func (all attachments) connections() (open, transient string) {
	for _, a := range all {
		o, t := a.Connections()
		open, transient = cmp.Or(open, o), cmp.Or(transient, t)
	}
	return open, transient
}

// describe returns the attachments in words.
func (all attachments) describe() (words []string) {
	for _, a := range all {
		words = append(words, a.String())
	}
	return words
}

// connect connects the cards of a QEMU, and begins the captures in the record's directory.
func (m *Machine) connect(restored bool) error {
	for i, a := range m.attached {
		file, err := m.newCapture("net" + strconv.Itoa(i) + ".pcapng")
		if err != nil {
			return err
		}
		if err := a.Connect(Cable{Conn: m.vm.Process.Cards[i], Restored: restored, Capture: file}); err != nil {
			return err
		}
	}
	return nil
}

// configureNetwork gives a guest that boots its networks. If the guest has no agent, it uses the services of
// the network.
func (m *Machine) configureNetwork() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-m.ended:
			cancel()
		case <-ctx.Done():
		}
	}()
	if err := m.vm.Configure(ctx); err != nil && ctx.Err() == nil {
		m.vm.Agent.Remark(err.Error()) // the guest's program fails, and says why
	}
}

// relay adds the forwards of the Spec's ports to a guest that QEMU's user network does not reach.
func (m *Machine) relay() error {
	for _, f := range m.plan.relayed {
		r, err := relay.Listen(f.Network, func(ctx context.Context) (net.Conn, error) { return m.dialNetwork(ctx, f.Network, f.Guest) })
		if err != nil {
			return fmt.Errorf("forward port %s/%d: %w", f.Network, f.Guest, err)
		}
		f.Host = r.Port()
		m.relays, m.forwards = append(m.relays, r), append(m.forwards, f)
	}
	return nil
}

// leaveNetworks takes the cards off their networks and completes the captures, after the end of QEMU.
func (m *Machine) leaveNetworks(why error) {
	err := m.attached.close(why)
	for _, r := range m.relays {
		r.Close()
	}
	if m.captured != nil {
		<-m.captured
	}
	for _, f := range m.captures {
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		m.vm.Record.Fail("net.pcapng", err)
	}
}

// dialNetwork connects to a port of the guest on its first network that has the guest's address.
func (m *Machine) dialNetwork(ctx context.Context, network string, port int) (net.Conn, error) {
	if port < 1 || port > 65535 {
		return nil, fmt.Errorf("port %d: write 1 to 65535", port)
	}
	transport := strings.TrimRight(network, "46")
	if transport != "tcp" && transport != "udp" {
		return nil, fmt.Errorf("unknown network %q: write tcp, tcp4, tcp6, udp, udp4 or udp6", network)
	}
	return m.attached[0].Dial(ctx, network, port)
}
