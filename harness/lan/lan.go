package lan

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"sync"

	"guesthouse.example/harness"
	"guesthouse.example/harness/lan/internal/netstack"
	"guesthouse.example/harness/lan/internal/segment"
	"guesthouse.example/harness/lan/internal/services"
)

// A Config describes a lan. The zero value works.
type Config struct {
	// Seed decides the fates of all frames. If it is 0, New draws one; see [Lan.Seed].
	Seed uint64

	// Faults are the faults of the link of each machine, in both directions. [Link.SetFaults] changes them for one
	// link. The host's own link has none.
	Faults Faults

	// IPv4 and IPv6 are the networks. They are 192.0.2.0/24 and 2001:db8::/64 by default, those of Zephyr's samples.
	// The first machine has the address 1 in both networks, the host 2, and later machines have 3, 4 and so on.
	IPv4, IPv6 netip.Prefix

	// Capture, if it is not nil, receives the frames of the host's link as a pcapng file.
	Capture io.Writer
}

// A Lan is a network. Its methods may be called from any goroutine.
type Lan struct {
	config   Config
	segment  *segment.Segment
	host     *netstack.Stack
	address  [2]netip.Prefix // the host's
	services services.Network
	capture  *capture
	names    sync.WaitGroup // the name service

	mu     sync.Mutex
	lines  map[string]*Line  // by name
	leases map[[6]byte]lease // of machines that have a hardware address of their own
	taken  map[uint32]bool   // numbers of machines
	closed bool
}

// A lease is the place of a machine with a hardware address of its own.
type lease struct{ number uint32 }

var _ harness.Network = (*Lan)(nil)

// The networks of Zephyr's samples.
var (
	defaultIPv4 = netip.MustParsePrefix("192.0.2.0/24")
	defaultIPv6 = netip.MustParsePrefix("2001:db8::/64")
)

// HostName is the name of this process on a lan.
const HostName = "host"

const (
	hostNumber = 2

	// maxLeases bounds the hardware addresses of their own that get an address by DHCP, because a guest may ask with
	// any number of them.
	maxLeases = 256
)

// ErrClosed is the error of the connections of a lan that has been closed.
var ErrClosed = errors.New("the lan is closed")

// New returns a lan without machines.
func New(c Config) (*Lan, error) {
	if err := c.complete(); err != nil {
		return nil, fmt.Errorf("lan: %w", err)
	}
	for c.Seed == 0 {
		c.Seed = rand.Uint64()
	}
	l := &Lan{
		config: c, segment: segment.New(c.Seed),
		lines: make(map[string]*Line), leases: make(map[[6]byte]lease), taken: map[uint32]bool{hostNumber: true},
	}
	l.address = l.addresses(hostNumber)
	mac := hardwareAddress(l.address[0].Addr())
	l.services = services.Network{MAC: mac, Host: l.address[0], Host6: l.address[1], Lease: l.lease}
	if err := l.connectHost(mac); err != nil {
		l.segment.Close()
		return nil, err
	}
	return l, nil
}

// complete fills in the default networks, and refuses a Config with which no lan can work.
func (c *Config) complete() error {
	if !c.IPv4.IsValid() {
		c.IPv4 = defaultIPv4
	}
	if !c.IPv6.IsValid() {
		c.IPv6 = defaultIPv6
	}
	if !c.IPv4.Addr().Is4() || c.IPv4.Bits() < 8 || c.IPv4.Bits() > 29 {
		return fmt.Errorf("IPv4 network %v: it needs 8 to 29 bits", c.IPv4)
	}
	if !c.IPv6.Addr().Is6() || c.IPv6.Addr().Is4In6() || c.IPv6.Bits() > 96 {
		return fmt.Errorf("IPv6 network %v: it needs at most 96 bits", c.IPv6)
	}
	c.IPv4, c.IPv6 = c.IPv4.Masked(), c.IPv6.Masked()
	return c.Faults.check()
}

// connectHost puts the host's stack on the segment.
func (l *Lan) connectHost(mac [6]byte) (err error) {
	link := l.link(HostName)
	if l.host, err = netstack.New(mac, l.address[:], link.Send); err != nil {
		return err
	}
	if l.capture, err = newCapture(l.config, HostName, l.config.Capture); err == nil {
		_, err = link.Plug(func(frames [][]byte) {
			for _, frame := range frames {
				if answer := l.services.Answer(frame); answer != nil {
					link.Send(answer)
				} else {
					l.host.Deliver(frame)
				}
			}
		}, l.capture.watch())
	}
	if err == nil {
		err = l.serveNames()
	}
	if err != nil {
		l.host.Close(ErrClosed)
	}
	return err
}

// Seed returns the seed that decides the fates of all frames. A test prints it when it fails, so that it can be
// repeated with the same faults.
func (l *Lan) Seed() uint64 { return l.config.Seed }

// String returns the lan as the flag -net of guesthouse run takes it, with its seed. The record of each machine has it,
// so guesthouse run -spec boots the machine with the same faults.
func (l *Lan) String() string { return l.config.String() }

// addresses returns the addresses of the machine with a number.
func (l *Lan) addresses(number uint32) [2]netip.Prefix {
	return [2]netip.Prefix{
		netip.PrefixFrom(add(l.config.IPv4.Addr(), number), l.config.IPv4.Bits()),
		netip.PrefixFrom(add(l.config.IPv6.Addr(), number), l.config.IPv6.Bits()),
	}
}

// add adds a number to the last 32 bits of a network's address.
func add(network netip.Addr, number uint32) netip.Addr {
	bytes := network.AsSlice()
	for i := len(bytes) - 1; number > 0; i-- {
		bytes[i] |= byte(number) // a network's address ends in zeros
		number >>= 8
	}
	a, _ := netip.AddrFromSlice(bytes)
	return a
}

// hardwareAddress returns the hardware address of a machine. It follows from the IPv4 address, so a restored machine
// finds its neighbors under the addresses that it knew when it was saved.
func hardwareAddress(a netip.Addr) [6]byte {
	ip := a.As4()
	return [6]byte{0x02, 0x67, ip[0], ip[1], ip[2], ip[3]} // locally administered
}

// number returns the lowest number that no machine has, and takes it. The caller holds mu.
func (l *Lan) number() (uint32, error) {
	most := uint32(1)<<(32-l.config.IPv4.Bits()) - 2 // the highest number is that of the broadcast address
	for n := uint32(1); n <= most; n++ {
		if !l.taken[n] {
			l.taken[n] = true
			return n, nil
		}
	}
	return 0, fmt.Errorf("the network %v has no free address", l.config.IPv4)
}

// lease returns the IPv4 address of the machine with a hardware address. A machine that has not joined under this
// address gets a free one.
func (l *Lan) lease(mac [6]byte) (a netip.Addr, name string, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, line := range l.lines {
		if line.mac == mac {
			return line.addresses[0].Addr(), line.name, true
		}
	}
	at, known := l.leases[mac]
	if !known {
		if len(l.leases) == maxLeases {
			return a, "", false
		}
		n, err := l.number()
		if err != nil {
			return a, "", false
		}
		at = lease{n}
		l.leases[mac] = at
	}
	return l.addresses(at.number)[0].Addr(), "", true
}

// Lookup returns the addresses of the machine with a name, IPv4 first, or nil if there is none. The name host is
// that of this process.
func (l *Lan) Lookup(name string) []netip.Addr {
	if name == HostName {
		return addrs(l.address[:])
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if line := l.lines[name]; line != nil {
		return addrs(line.addresses[:])
	}
	return nil
}

func addrs(prefixes []netip.Prefix) (all []netip.Addr) {
	for _, p := range prefixes {
		all = append(all, p.Addr())
	}
	return all
}

// Close takes all machines off the lan and ends all connections with ErrClosed. The machines go on without the
// network. Close returns an error if a capture could not be written completely.
func (l *Lan) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	l.closed = true
	var lines []*Line
	for _, line := range l.lines {
		lines = append(lines, line)
	}
	l.mu.Unlock()
	var errs []error
	for _, line := range lines {
		errs = append(errs, line.Close(ErrClosed))
	}
	l.segment.Close()
	l.host.Close(ErrClosed)
	l.names.Wait()
	return errors.Join(append(errs, l.capture.Close())...)
}
