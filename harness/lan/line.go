package lan

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"regexp"
	"strconv"
	"sync"

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
	capture   *capture

	mu   sync.Mutex
	port *qemuport.Port // nil before Connect
	why  error          // why the machine has left the lan
}

// A Member describes a machine that joins a lan.
type Member struct {
	// Name is the machine's name. If it is empty, the machine is called guest, guest2, guest3 and so on.
	Name string

	// Capture, if it is not nil, receives the frames of the machine's link as a pcapng file, with a comment at each
	// fault. A frame is written at most 100 ms after it has entered the link, and one with a fault at once.
	Capture io.Writer
}

// validName matches names of machines, which are host names.
var validName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// Join adds a machine to the lan. It gets the lowest addresses that are free. It receives frames when Connect has
// been called.
func (l *Lan) Join(m Member) (*Line, error) {
	line, err := l.join(m.Name)
	if err != nil {
		return nil, fmt.Errorf("join the lan: %w", err)
	}
	fail := func(err error) (*Line, error) {
		line.Close(err)
		return nil, fmt.Errorf("join the lan: %w", err)
	}
	line.link = l.link(line.name)
	if line.capture, err = newCapture(l.config, line.name, m.Capture); err != nil {
		return fail(err)
	}
	line.unplug, err = line.link.Plug(line.deliver, line.capture.watch())
	if err != nil {
		return fail(err)
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

// Connect connects the card of a machine that QEMU runs. QEMU has the other end of the connection and an argument
// such as
//
//	-netdev stream,id=net0,addr.type=fd,addr.str=3
//
// The lan closes the connection when the machine leaves the lan. A machine whose guest is stopped drops the frames
// that it has no room for, and holds up no other machine.
func (n *Line) Connect(conn net.Conn) error {
	port, err := qemuport.New(conn)
	if err != nil {
		return err
	}
	n.mu.Lock()
	why := n.why
	again := n.port != nil
	if why == nil && !again {
		n.port = port
	}
	n.mu.Unlock()
	if why != nil || again {
		port.Close()
		if again {
			why = errors.New("it is connected already")
		}
		return fmt.Errorf("machine %s: %w", n.name, why)
	}
	port.Start(n.link.Send)
	return nil
}

// deliver gives a frame to the machine.
func (n *Line) deliver(frame []byte) {
	n.mu.Lock()
	port := n.port
	n.mu.Unlock()
	if port != nil {
		port.Write(frame)
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
	return n.capture.Close()
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
