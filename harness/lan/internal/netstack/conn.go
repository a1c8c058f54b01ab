package netstack

import (
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// A life ends the connections and listeners of a stack with an error.
type life struct {
	mu    sync.Mutex
	conns map[ender]bool
	why   error
}

// An ender is a connection or a listener.
type ender interface{ end(why error) }

// add adds a connection, or ends it at once if the life has ended.
func (l *life) add(c ender) {
	l.mu.Lock()
	why := l.why
	if why == nil {
		l.conns[c] = true
	}
	l.mu.Unlock()
	if why != nil {
		c.end(why)
	}
}

func (l *life) remove(c ender) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, c)
}

func (l *life) end(why error) {
	l.mu.Lock()
	l.why = why
	conns := l.conns
	l.conns = nil
	l.mu.Unlock()
	for c := range conns {
		c.end(why)
	}
}

// ended returns why the life has ended, or nil.
func (l *life) ended() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.why
}

// A gonetConn is a connection of package gonet.
type gonetConn interface {
	net.Conn
	CloseWrite() error
	CloseRead() error
}

// deadlines are the deadlines of a connection that can end: they are in the past from then on.
type deadlines struct {
	mu  sync.Mutex
	why error
}

// set calls a function that sets a deadline, unless the connection has ended.
func (d *deadlines) set(f func(time.Time) error, t time.Time) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.why != nil {
		return nil
	}
	return f(t)
}

// end makes all reads and writes fail, also those under way.
func (d *deadlines) end(why error, f func(time.Time) error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.why == nil {
		d.why = why
		f(time.Unix(1, 0))
	}
}

// explain replaces an error by the reason for the connection's end.
func (d *deadlines) explain(op string, c net.Conn, err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.why == nil {
		return err
	}
	e := &net.OpError{Op: op, Net: c.LocalAddr().Network(), Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: d.why}
	return e
}

// A conn is a connection that ends with the stack, or when its peer's machine does.
type conn struct {
	net.Conn
	life *life
	deadlines
}

func (c *conn) end(why error) { c.deadlines.end(why, c.Conn.SetDeadline) }

func (c *conn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	return n, c.explain("read", c.Conn, err)
}

func (c *conn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	return n, c.explain("write", c.Conn, err)
}

func (c *conn) Close() error {
	c.life.remove(c)
	return c.Conn.Close()
}

func (c *conn) SetDeadline(t time.Time) error      { return c.set(c.Conn.SetDeadline, t) }
func (c *conn) SetReadDeadline(t time.Time) error  { return c.set(c.Conn.SetReadDeadline, t) }
func (c *conn) SetWriteDeadline(t time.Time) error { return c.set(c.Conn.SetWriteDeadline, t) }

// End ends the connection with an error.
func (c *conn) End(why error) {
	c.end(why)
	c.life.remove(c)
}

// A tcpConn is a TCP connection, which has two directions to close.
type tcpConn struct {
	*conn
	half gonetConn
}

func (c *tcpConn) CloseWrite() error { return c.half.CloseWrite() }
func (c *tcpConn) CloseRead() error  { return c.half.CloseRead() }

// A packetConn is a socket for datagrams from any address.
type packetConn struct {
	*conn
	packets net.PacketConn
}

func (c *packetConn) ReadFrom(b []byte) (int, net.Addr, error) {
	n, from, err := c.packets.ReadFrom(b)
	return n, from, c.explain("read", c.Conn, err)
}

func (c *packetConn) WriteTo(b []byte, to net.Addr) (int, error) {
	n, err := c.packets.WriteTo(b, to)
	return n, c.explain("write", c.Conn, err)
}

// A listener accepts connections until it or the stack is closed.
type listener struct {
	net.Listener
	life     *life
	shutdown func()

	once sync.Once
	mu   sync.Mutex
	why  error
}

func (l *listener) end(why error) {
	l.mu.Lock()
	if l.why == nil {
		l.why = why
	}
	l.mu.Unlock()
	l.once.Do(func() {
		l.shutdown()
		l.Listener.Close()
	})
}

func (l *listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.why != nil {
			err = l.why
		}
		return nil, &net.OpError{Op: "accept", Net: "tcp", Addr: l.Addr(), Err: err}
	}
	return track(l.life, c), nil
}

func (l *listener) Close() error {
	l.life.remove(l)
	l.end(net.ErrClosed)
	return nil
}

// track makes a connection end with a life.
func track(l *life, c net.Conn) net.Conn {
	tracked := &conn{Conn: c, life: l}
	l.add(tracked)
	if half, ok := c.(gonetConn); ok {
		return &tcpConn{tracked, half}
	}
	return tracked
}

// End ends the connections with machines that have one of the addresses.
func (n *Stack) End(addresses []netip.Addr, why error) {
	n.life.mu.Lock()
	var gone []*conn
	for c := range n.life.conns {
		if c, ok := c.(*conn); ok && c.Conn.RemoteAddr() != nil {
			at, err := netip.ParseAddrPort(c.Conn.RemoteAddr().String())
			if err == nil && slices.Contains(addresses, at.Addr().Unmap()) {
				gone = append(gone, c)
			}
		}
	}
	n.life.mu.Unlock()
	for _, c := range gone {
		c.End(why)
	}
}
