package guestconn

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// A tcpConn is a TCP connection to the guest.
type tcpConn struct {
	*net.TCPConn
	tie     *tie
	sent    atomic.Int64 // bytes that were given to Write, and closing
	writing sync.RWMutex // writers read-lock it
}

func (c *tcpConn) Read(b []byte) (n int, err error) {
	err = c.tie.read(func() (err error) { n, err = c.TCPConn.Read(b); return err })
	return n, err
}

func (c *tcpConn) Write(b []byte) (int, error) {
	if err := c.sends(len(b)); err != nil {
		return 0, err
	}
	c.writing.RLock()
	n, err := c.TCPConn.Write(b)
	c.writing.RUnlock()
	return n, c.tie.explain("write", err)
}

func (c *tcpConn) ReadFrom(r io.Reader) (int64, error) {
	if err := c.sends(sndspace); err != nil { // how much is unknown
		return 0, err
	}
	c.writing.RLock()
	n, err := c.TCPConn.ReadFrom(r)
	c.writing.RUnlock()
	return n, c.tie.explain("write", err)
}

func (c *tcpConn) WriteTo(w io.Writer) (int64, error) {
	n, err := c.TCPConn.WriteTo(w)
	if c.tie.readsNoMore(err) {
		return n, nil
	}
	if errors.Is(err, os.ErrDeadlineExceeded) && c.tie.isOver() {
		more, err := io.Copy(w, struct{ io.Reader }{c}) // data that arrived before the machine's end
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

func (c *tcpConn) CloseRead() error { return c.tie.CloseRead() }

func (c *tcpConn) CloseWrite() error { return c.tie.explain("close", c.TCPConn.CloseWrite()) }

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
