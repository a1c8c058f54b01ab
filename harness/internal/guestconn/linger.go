package guestconn

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// libslirp 4.7, QEMU's user network, keeps what a client has sent in a buffer until the guest takes it. If a
// client resets its connection while that buffer is full, and bytes of the guest wait for the client, libslirp
// aborts QEMU:
//
//	socket.c:192: soread: Assertion `buf_len != 0' failed.
//
// A close resets a connection if the client has not read all, or if the guest sends more afterwards. So a
// connection that has sent enough to fill the buffer stays open for the host's kernel until libslirp has read
// all of it: a goroutine half-closes the connection and discards what the guest sends. Then the buffer cannot
// fill any more, and the goroutine closes the connection, which resets it if the guest goes on sending. The
// goroutine also ends when the guest ends its stream, and with QEMU.

// sndspace is the least number of bytes that fill libslirp's buffer.
const sndspace = 128 << 10

// closing is added to the count of bytes when a connection is closed.
const closing = 1 << 56

// sends counts n bytes before they are written. It returns an error if the connection is closed.
func (c *tcpConn) sends(n int) error {
	if c.sent.Add(int64(n)) < closing {
		return nil
	}
	return &net.OpError{Op: "write", Net: c.LocalAddr().Network(), Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: net.ErrClosed}
}

// Close closes the connection. It returns at once.
func (c *tcpConn) Close() error {
	if sent := c.sent.Add(closing) - closing; sent < sndspace || sent >= closing {
		return c.tie.Close()
	}
	socket, err := c.File() // a duplicate, which keeps the kernel's socket open
	closed := c.tie.Close()
	if err == nil {
		go c.linger(socket)
	}
	return closed
}

// linger closes the socket of a closed connection when libslirp's buffer cannot be full any more.
func (c *tcpConn) linger(socket *os.File) {
	defer socket.Close()
	c.writing.Lock() // until the writes that were under way have ended
	n, err := written(socket)
	c.writing.Unlock()
	if err == nil && n < sndspace {
		return
	}
	// libslirp reads only while its buffer is less than half full. If less than half a buffer is unread, the
	// buffer is not full after the last read. An end of the stream that came earlier could arrive together with
	// the bytes that fill the buffer.
	for wait := time.Millisecond; ; wait = min(2*wait, time.Second) {
		if n, err := c.unread(socket); err != nil || n < sndspace/2 {
			break
		}
		_ = socket.SetReadDeadline(time.Now().Add(wait)) // a file that the poller refuses fails to read below
		if _, err := io.Copy(io.Discard, socket); !errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
	}
	_ = socket.SetReadDeadline(time.Time{})
	if control(socket, func(fd int) error { return unix.Shutdown(fd, unix.SHUT_WR) }) != nil {
		return // the guest, or QEMU's end, has reset the connection
	}
	for buf := make([]byte, 64<<10); ; {
		if _, err := socket.Read(buf); err != nil {
			return // with the end of the guest's stream, libslirp writes no more and does not abort
		}
		if n, err := c.unread(socket); err == nil && n == 0 {
			return
		}
	}
}

func control(socket *os.File, f func(fd int) error) error {
	raw, err := socket.SyscallConn()
	if err != nil {
		return err
	}
	var called error
	err = raw.Control(func(fd uintptr) { called = f(int(fd)) })
	return errors.Join(err, called)
}

// written returns how many bytes were written to a TCP socket, and at most one more.
func written(socket *os.File) (n int64, err error) {
	err = control(socket, func(fd int) error {
		info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		if err != nil {
			return os.NewSyscallError("getsockopt", err)
		}
		queued, err := unix.IoctlGetInt(fd, unix.SIOCOUTQ)
		n = int64(info.Bytes_acked) + int64(queued)
		return os.NewSyscallError("ioctl", err)
	})
	return n, err
}

// unread returns how much QEMU has not read of the connection: the bytes in both queues, and one for the end of
// the stream.
func (c *tcpConn) unread(socket *os.File) (n int, err error) {
	if err = control(socket, func(fd int) (err error) {
		n, err = unix.IoctlGetInt(fd, unix.SIOCOUTQ)
		return os.NewSyscallError("ioctl", err)
	}); err != nil {
		return 0, err
	}
	table, err := os.ReadFile("/proc/thread-self/net/tcp")
	if err != nil {
		return 0, err
	}
	here, there := inTable(c.LocalAddr()), inTable(c.RemoteAddr())
	for line := range strings.Lines(string(table)) {
		// sl local_address rem_address st tx_queue:rx_queue
		f := strings.Fields(line)
		if len(f) < 5 || f[1] != there || f[2] != here {
			continue
		}
		_, received, _ := strings.Cut(f[4], ":")
		queue, err := strconv.ParseUint(received, 16, 32)
		return n + int(queue), err
	}
	return 0, fmt.Errorf("%v is not connected to %v", c.RemoteAddr(), c.LocalAddr())
}

// inTable writes an IPv4 address as /proc/net/tcp does.
func inTable(addr net.Addr) string {
	at := addr.(*net.TCPAddr).AddrPort()
	ip := at.Addr().Unmap().As4()
	return fmt.Sprintf("%08X:%04X", binary.NativeEndian.Uint32(ip[:]), at.Port())
}
