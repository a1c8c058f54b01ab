package harness

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"guesthouse.example/internal/procs"
)

// dial connects to a port of 127.0.0.1 that leads to the guest. The connection ends with the
// machine, and so does a dial under way.
func (m *Machine) dial(ctx context.Context, network string, port int) (net.Conn, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(context.Canceled)
	defer context.AfterFunc(m.life, func() { cancel(context.Cause(m.life)) })()
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		if at, ok := ctx.Deadline(); ok && !time.Now().Before(at) {
			<-ctx.Done() // the dialer has a clock of its own
		}
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, err
	}
	switch conn := conn.(type) {
	case *net.TCPConn:
		return &tcpConn{conn, m.tie(conn)}, nil
	case *net.UDPConn:
		return &udpConn{conn, m.tie(conn)}, nil
	}
	return conn, nil
}

// live ends the machine's life, of which its connections are a part, when its guest has
// crashed and said the rest of that, or when it has ended.
func (m *Machine) live() {
	select {
	case <-m.collected:
		if err := m.crashed(); err != nil {
			m.endLife(err)
			return
		}
	case <-m.ended:
	}
	<-m.ended
	m.endLife(m.gist())
}

// gist says how a machine that is gone has ended, also where that is no error.
func (m *Machine) gist() error {
	switch {
	case m.err != nil:
		return fmt.Errorf("the machine has ended: %w", m.err)
	case m.closing.Load():
		return errClosed
	}
	return errPoweredOff
}

var errPoweredOff = errors.New("the machine has powered off")

// A tie ends a connection's reads and writes with the machine: with a deadline in the past,
// which nobody can take back.
type tie struct {
	m    *Machine
	conn interface {
		net.Conn
		syscall.Conn
	}
	untie func() bool

	mu   sync.Mutex
	over bool
}

func (m *Machine) tie(conn interface {
	net.Conn
	syscall.Conn
}) *tie {
	t := &tie{m: m, conn: conn}
	t.untie = context.AfterFunc(m.life, func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.over = true
		conn.SetDeadline(past)
	})
	return t
}

var past = time.Unix(1, 0)

// Close closes the connection.
func (t *tie) Close() error {
	t.untie()
	return t.conn.Close()
}

// SetDeadline and its siblings are those of the connection until the machine ends.
func (t *tie) SetDeadline(at time.Time) error { return t.set(t.conn.SetDeadline, at) }

func (t *tie) SetReadDeadline(at time.Time) error { return t.set(t.conn.SetReadDeadline, at) }

func (t *tie) SetWriteDeadline(at time.Time) error { return t.set(t.conn.SetWriteDeadline, at) }

func (t *tie) set(deadline func(time.Time) error, at time.Time) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.over {
		return nil
	}
	return deadline(at)
}

// read reads. What had arrived when the machine ended is read first.
func (t *tie) read(f func() error) error {
	err := f()
	if !errors.Is(err, os.ErrDeadlineExceeded) || !t.isOver() || !t.readable() {
		return t.explain("read", err)
	}
	t.mu.Lock()
	t.conn.SetReadDeadline(time.Now().Add(time.Second)) // another reader may have been faster
	err = f()
	t.conn.SetReadDeadline(past)
	t.mu.Unlock()
	return t.explain("read", err)
}

func (t *tie) isOver() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.over
}

// readable says whether a read would not wait: there is data, or the connection's end.
func (t *tie) readable() (is bool) {
	raw, err := t.conn.SyscallConn()
	if err != nil {
		return false // closed
	}
	raw.Control(func(fd uintptr) {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		is = n > 0 && err == nil
	})
	return is
}

// explain replaces the error of a connection whose machine has ended by the reason. The end of
// a TCP stream stays what it is where the guest has not failed: the guest may have closed its
// end before.
func (t *tie) explain(op string, err error) error {
	if err == nil || errors.Is(err, net.ErrClosed) {
		return err
	}
	if t.m.life.Err() == nil && !errors.Is(err, os.ErrDeadlineExceeded) && t.m.ending() {
		// The connection has ended with QEMU, and what else QEMU has said is just being read.
		select {
		case <-t.m.life.Done():
		case <-time.After(endsWithin):
		}
	}
	if t.m.life.Err() == nil {
		return err
	}
	why := context.Cause(t.m.life)
	if err == io.EOF && (errors.Is(why, errPoweredOff) || errors.Is(why, errClosed)) {
		return err
	}
	return &net.OpError{Op: op, Net: t.conn.LocalAddr().Network(), Source: t.conn.LocalAddr(), Addr: t.conn.RemoteAddr(), Err: why}
}

// endsWithin bounds the time between the end of QEMU and that of its machine, when all that it
// said is recorded.
const endsWithin = 5 * time.Second

// ending says whether QEMU is gone or just going. It closes its connections on its way, and
// says before that it goes, unless it is killed. That may be on its way to us.
func (m *Machine) ending() bool {
	for range 2 {
		select {
		case <-m.proc.done:
			return true
		default:
		}
		if p, ok := procs.Look(m.proc.cmd.Process.Pid); !ok || p.Ends || m.shutdown.Load() != nil {
			return true
		}
		time.Sleep(time.Millisecond)
	}
	return false
}

// A tcpConn is a TCP connection to the guest.
type tcpConn struct {
	*net.TCPConn
	tie *tie
}

func (c *tcpConn) Read(b []byte) (n int, err error) {
	err = c.tie.read(func() (err error) { n, err = c.TCPConn.Read(b); return err })
	return n, err
}

func (c *tcpConn) Write(b []byte) (int, error) {
	n, err := c.TCPConn.Write(b)
	return n, c.tie.explain("write", err)
}

func (c *tcpConn) ReadFrom(r io.Reader) (int64, error) {
	n, err := c.TCPConn.ReadFrom(r)
	return n, c.tie.explain("write", err)
}

func (c *tcpConn) WriteTo(w io.Writer) (int64, error) {
	n, err := c.TCPConn.WriteTo(w)
	if errors.Is(err, os.ErrDeadlineExceeded) && c.tie.isOver() {
		more, err := io.Copy(w, struct{ io.Reader }{c}) // what had arrived
		return n + more, err
	}
	if err == nil {
		err = io.EOF
	}
	if err = c.tie.explain("read", err); err == io.EOF {
		err = nil
	}
	return n, err
}

func (c *tcpConn) CloseRead() error { return c.tie.explain("close", c.TCPConn.CloseRead()) }

func (c *tcpConn) CloseWrite() error { return c.tie.explain("close", c.TCPConn.CloseWrite()) }

func (c *tcpConn) Close() error { return c.tie.Close() }

func (c *tcpConn) SetDeadline(at time.Time) error { return c.tie.SetDeadline(at) }

func (c *tcpConn) SetReadDeadline(at time.Time) error { return c.tie.SetReadDeadline(at) }

func (c *tcpConn) SetWriteDeadline(at time.Time) error { return c.tie.SetWriteDeadline(at) }

// A udpConn is a UDP socket that is connected to the guest.
type udpConn struct {
	*net.UDPConn
	tie *tie
}

func (c *udpConn) Read(b []byte) (n int, err error) {
	err = c.tie.read(func() (err error) { n, err = c.UDPConn.Read(b); return err })
	return n, err
}

func (c *udpConn) ReadFrom(b []byte) (n int, from net.Addr, err error) {
	err = c.tie.read(func() (err error) { n, from, err = c.UDPConn.ReadFrom(b); return err })
	return n, from, err
}

func (c *udpConn) ReadFromUDP(b []byte) (n int, from *net.UDPAddr, err error) {
	err = c.tie.read(func() (err error) { n, from, err = c.UDPConn.ReadFromUDP(b); return err })
	return n, from, err
}

func (c *udpConn) ReadFromUDPAddrPort(b []byte) (n int, from netip.AddrPort, err error) {
	err = c.tie.read(func() (err error) { n, from, err = c.UDPConn.ReadFromUDPAddrPort(b); return err })
	return n, from, err
}

func (c *udpConn) ReadMsgUDP(b, oob []byte) (n, oobn, flags int, from *net.UDPAddr, err error) {
	err = c.tie.read(func() (err error) { n, oobn, flags, from, err = c.UDPConn.ReadMsgUDP(b, oob); return err })
	return n, oobn, flags, from, err
}

func (c *udpConn) ReadMsgUDPAddrPort(b, oob []byte) (n, oobn, flags int, from netip.AddrPort, err error) {
	err = c.tie.read(func() (err error) { n, oobn, flags, from, err = c.UDPConn.ReadMsgUDPAddrPort(b, oob); return err })
	return n, oobn, flags, from, err
}

func (c *udpConn) Write(b []byte) (int, error) {
	n, err := c.UDPConn.Write(b)
	return n, c.tie.explain("write", err)
}

func (c *udpConn) WriteMsgUDP(b, oob []byte, to *net.UDPAddr) (n, oobn int, err error) {
	n, oobn, err = c.UDPConn.WriteMsgUDP(b, oob, to)
	return n, oobn, c.tie.explain("write", err)
}

func (c *udpConn) WriteMsgUDPAddrPort(b, oob []byte, to netip.AddrPort) (n, oobn int, err error) {
	n, oobn, err = c.UDPConn.WriteMsgUDPAddrPort(b, oob, to)
	return n, oobn, c.tie.explain("write", err)
}

func (c *udpConn) Close() error { return c.tie.Close() }

func (c *udpConn) SetDeadline(at time.Time) error { return c.tie.SetDeadline(at) }

func (c *udpConn) SetReadDeadline(at time.Time) error { return c.tie.SetReadDeadline(at) }

func (c *udpConn) SetWriteDeadline(at time.Time) error { return c.tie.SetWriteDeadline(at) }
