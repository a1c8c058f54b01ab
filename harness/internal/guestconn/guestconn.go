// Package guestconn makes connections to the forwarded ports of a guest. When the machine ends, its
// connections end, and their errors say why the machine has ended. Package harness uses it for
// Machine.Dial.
package guestconn

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A Life is the life of a machine, which bounds its connections.
type Life struct {
	ctx    context.Context // its cause says how the machine ended
	end    context.CancelCauseFunc
	ending func() bool
}

// NewLife begins a machine's life. The function ending reports whether QEMU has exited or is exiting,
// even if End has not been called yet.
func NewLife(ending func() bool) *Life {
	l := &Life{ending: ending}
	l.ctx, l.end = context.WithCancelCause(context.Background())
	return l
}

// End ends all connections; why becomes the error of their reads and writes. Later calls do nothing.
func (l *Life) End(why error) { l.end(why) }

// ErrClosed and ErrPoweredOff are reasons for End of a guest that has not failed. After them the end of a
// TCP stream is io.EOF.
var (
	ErrClosed     = errors.New("the machine was closed")
	ErrPoweredOff = errors.New("the machine has powered off")
)

// Dial connects to a port of 127.0.0.1 that is forwarded to the guest. It fails when ctx or the machine
// ends.
func (l *Life) Dial(ctx context.Context, network string, port int) (net.Conn, error) {
	if l.ctx.Err() != nil {
		return nil, context.Cause(l.ctx)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(context.Canceled)
	defer context.AfterFunc(l.ctx, func() { cancel(context.Cause(l.ctx)) })()
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		if at, ok := ctx.Deadline(); ok && !time.Now().Before(at) {
			<-ctx.Done() // the dialer has a timer of its own, which may fire before that of ctx
		}
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, err
	}
	switch conn := conn.(type) {
	case *net.TCPConn:
		return &tcpConn{TCPConn: conn, tie: l.tie(conn)}, nil
	case *net.UDPConn:
		return &udpConn{conn, l.tie(conn)}, nil
	}
	return conn, nil
}

// A tie ends a connection's reads and writes when the machine ends: it sets a deadline in the past, which
// the connection's user cannot change.
type tie struct {
	life *Life
	conn rawConn
	stop func() bool // unties the connection from the machine

	mu     sync.Mutex
	over   bool // the machine has ended
	noRead bool // CloseRead was called
}

type rawConn interface {
	net.Conn
	syscall.Conn
}

func (l *Life) tie(conn rawConn) *tie {
	t := &tie{life: l, conn: conn}
	t.stop = context.AfterFunc(l.ctx, func() {
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
	t.stop()
	return t.conn.Close()
}

// SetDeadline sets the connection's deadline. After the machine's end, SetDeadline, SetReadDeadline and
// SetWriteDeadline do nothing.
func (t *tie) SetDeadline(at time.Time) error {
	return errors.Join(t.SetReadDeadline(at), t.SetWriteDeadline(at))
}

func (t *tie) SetReadDeadline(at time.Time) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.over || t.noRead {
		return nil
	}
	return t.conn.SetReadDeadline(at)
}

func (t *tie) SetWriteDeadline(at time.Time) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.over {
		return nil
	}
	return t.conn.SetWriteDeadline(at)
}

// CloseRead ends all reads with io.EOF. The host's kernel does not learn of it: after a half-close it would
// answer the guest's bytes with a reset, which may abort QEMU.
func (t *tie) CloseRead() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.noRead = true
	return t.conn.SetReadDeadline(past)
}

func (t *tie) readsNoMore(err error) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.noRead && errors.Is(err, os.ErrDeadlineExceeded)
}

// read calls f, which reads from the connection. After the machine's end, f still gets the data that
// arrived before.
func (t *tie) read(f func() error) error {
	err := f()
	if t.readsNoMore(err) {
		return io.EOF
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) || !t.isOver() || !t.readable() {
		return t.explain("read", err)
	}
	t.mu.Lock()
	t.conn.SetReadDeadline(time.Now().Add(time.Second)) // another reader may take the data first
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

// readable reports whether a read would return at once, with data or with the connection's end.
func (t *tie) readable() (ready bool) {
	raw, err := t.conn.SyscallConn()
	if err != nil {
		return false // closed
	}
	raw.Control(func(fd uintptr) {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		ready = n > 0 && err == nil
	})
	return ready
}

// explain replaces the error of a connection whose machine has ended by the reason for that end. It keeps
// io.EOF if the guest has not failed, because the guest may have closed the stream itself.
func (t *tie) explain(op string, err error) error {
	if err == nil || errors.Is(err, net.ErrClosed) {
		return err
	}
	life := t.life.ctx
	if life.Err() == nil && !errors.Is(err, os.ErrDeadlineExceeded) && t.life.ending() {
		// The connection has ended with QEMU, and the harness is still reading QEMU's last output to find
		// the reason.
		select {
		case <-life.Done():
		case <-time.After(endsWithin):
		}
	}
	if life.Err() == nil {
		return err
	}
	why := context.Cause(life)
	if err == io.EOF && (errors.Is(why, ErrPoweredOff) || errors.Is(why, ErrClosed)) {
		return err
	}
	return &net.OpError{Op: op, Net: t.conn.LocalAddr().Network(), Source: t.conn.LocalAddr(), Addr: t.conn.RemoteAddr(), Err: why}
}

// endsWithin bounds the time from the end of QEMU to the call of End.
const endsWithin = 5 * time.Second
