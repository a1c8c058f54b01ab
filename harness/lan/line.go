package lan

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"regexp"
	"strconv"
	"sync"
	"sync/atomic"

	"guesthouse.example/harness"
	"guesthouse.example/harness/lan/internal/pcapng"
	"guesthouse.example/harness/lan/internal/qemuport"
	"guesthouse.example/harness/lan/internal/segment"
)

// A Line is the place of a machine's card on a lan. Its methods may be called from any goroutine.
type Line struct {
	lan       *Lan
	name      string
	mac       [6]byte
	number    uint32
	addresses [2]netip.Prefix
	link      *segment.Link
	unplug    func()
	capture   atomic.Pointer[capture] // nil before Connect

	mu   sync.Mutex
	port *qemuport.Port // nil before Connect
	why  error          // why the machine has left the lan
}

var _ harness.Attachment = (*Line)(nil)

// validName matches names of machines, which are host names.
var validName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// Join adds a machine to the lan. An empty name stands for guest, or guest2, guest3 and so on if that is taken. The
// machine gets the lowest addresses that are free. It receives frames when Connect has been called.
//
// A machine of package harness joins the lans of its Spec.Net by itself. Join is for other programs that run QEMU.
func (l *Lan) Join(name string) (*Line, error) {
	line, err := l.join(name)
	if err != nil {
		return nil, fmt.Errorf("join the lan: %w", err)
	}
	line.link = l.link(line.name)
	line.unplug, err = line.link.Plug(line.deliver, line.watch)
	if err != nil {
		line.Close(err)
		return nil, fmt.Errorf("join the lan: %w", err)
	}
	return line, nil
}

// Attach is Join for package harness.
func (l *Lan) Attach(name string) (harness.Attachment, error) {
	line, err := l.Join(name)
	if err != nil {
		return nil, err
	}
	return line, nil
}

// join gives a machine its name and its number.
func (l *Lan) join(name string) (*Line, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, ErrClosed
	}
	for i := 1; name == ""; i++ {
		candidate := "guest"
		if i > 1 {
			candidate += strconv.Itoa(i)
		}
		if l.lines[candidate] == nil {
			name = candidate
		}
	}
	switch {
	case !validName.MatchString(name):
		return nil, fmt.Errorf("machine %q: a name has letters in lower case, digits and hyphens", name)
	case name == HostName:
		return nil, fmt.Errorf("machine %q: this is the name of the test's process", name)
	case l.lines[name] != nil:
		return nil, fmt.Errorf("machine %q: another machine has this name", name)
	}
	number, err := l.number()
	if err != nil {
		return nil, err
	}
	line := &Line{lan: l, name: name, number: number, addresses: l.addresses(number)}
	line.mac = hardwareAddress(line.addresses[0].Addr())
	l.lines[name] = line
	return line, nil
}

// Name returns the machine's name.
func (n *Line) Name() string { return n.name }

// MAC returns the hardware address of the machine's card.
func (n *Line) MAC() net.HardwareAddr { return n.mac[:] }

// Addresses returns the machine's addresses, IPv4 first, with the sizes of their networks.
func (n *Line) Addresses() []netip.Prefix { return n.addresses[:] }

// Hosts returns the addresses of this process on the lan, where the name service is too.
func (n *Line) Hosts() []netip.Addr { return addrs(n.lan.address[:]) }

// String returns the machine's name and addresses, and the seed of the lan.
func (n *Line) String() string {
	return fmt.Sprintf("%s: %v, %v, %v; seed %d", n.name, n.MAC(), n.addresses[0], n.addresses[1], n.lan.Seed())
}

// Connect connects the card of a machine that QEMU runs. QEMU has the other end of the connection and an argument
// such as
//
//	-netdev stream,id=net0,addr.type=fd,addr.str=3
//
// The lan closes the connection when the machine leaves the lan. A machine whose guest is stopped drops the frames
// that it has no room for, and holds up no other machine.
//
// A frame is in the capture at most 100 ms after it has entered the link, and one with a fault at once. A comment at a
// frame says what the link did to it.
func (n *Line) Connect(c harness.Cable) error {
	port, err := qemuport.New(c.Conn)
	if err != nil {
		return err
	}
	n.mu.Lock()
	why := n.why
	if n.port != nil {
		why = errors.New("it is connected already")
	}
	var file *capture
	if why == nil {
		file, why = newCapture(n.lan.config, n.name, c.Capture)
	}
	if why == nil {
		n.port = port
		n.capture.Store(file)
	}
	n.mu.Unlock()
	if why != nil {
		port.Close()
		return fmt.Errorf("machine %s: %w", n.name, why)
	}
	port.Start(n.take(c.Restored))
	return nil
}

// take returns the function that takes the frames of the machine. It drops those that a restored guest has sent
// under its old hardware address.
func (n *Line) take(restored bool) func(frames ...[]byte) {
	if !restored {
		return n.link.Send
	}
	return func(frames ...[]byte) {
		for restored && len(frames) > 0 {
			if len(frames[0]) >= 12 && [6]byte(frames[0][6:12]) == n.mac {
				restored = false
			} else {
				frames = frames[1:]
			}
		}
		n.link.Send(frames...)
	}
}

// watch gives a frame of the link to the capture.
func (n *Line) watch(e segment.Event) {
	if c := n.capture.Load(); c != nil {
		c.file.Write(e)
	}
}

// Dial connects from this process to a port of the machine; see [Lan.Dial].
func (n *Line) Dial(ctx context.Context, network string, port int) (net.Conn, error) {
	return n.lan.Dial(ctx, network, net.JoinHostPort(n.name, strconv.Itoa(port)))
}

// Connections returns a TCP connection between this process and the machine that is open, and one that is about to open
// or to close, in words, or "" for each if there is none.
func (n *Line) Connections() (open, transient string) {
	return n.lan.host.Connections(addrs(n.addresses[:]))
}

// deliver gives frames to the machine.
func (n *Line) deliver(frames [][]byte) {
	n.mu.Lock()
	port := n.port
	n.mu.Unlock()
	if port != nil {
		port.Write(frames...)
	}
}

// Close takes the machine off the lan. Its connections with this process end with the error why. Close returns an
// error if the capture could not be written completely.
func (n *Line) Close(why error) error {
	if why == nil {
		why = errors.New("the machine has left the lan")
	}
	n.mu.Lock()
	if n.why != nil {
		n.mu.Unlock()
		return nil
	}
	n.why = why
	port := n.port
	n.mu.Unlock()

	l := n.lan
	l.mu.Lock()
	delete(l.lines, n.name)
	delete(l.taken, n.number)
	l.mu.Unlock()
	if n.unplug != nil {
		n.unplug()
	}
	if port != nil {
		port.Close()
	}
	l.host.End(addrs(n.addresses[:]), why)
	return n.capture.Load().Close()
}

// A capture writes the frames of a link into a file. A nil capture writes nothing.
type capture struct{ file *pcapng.File }

func newCapture(c Config, link string, to io.Writer) (*capture, error) {
	if to == nil {
		return nil, nil
	}
	file, err := pcapng.New(to, link, fmt.Sprintf("seed %d", c.Seed))
	if err != nil {
		return nil, err
	}
	return &capture{file}, nil
}

func (c *capture) watch() func(segment.Event) {
	if c == nil {
		return nil
	}
	return c.file.Write
}

func (c *capture) Close() error {
	if c == nil {
		return nil
	}
	return c.file.Close()
}
