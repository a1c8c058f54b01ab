package guestconn

import (
	"fmt"
	"io"
	"net"
	"os"
	"reflect"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"guesthouse.example/harness/internal/guestfault"
)

func newLife() *Life { return NewLife(func() bool { return false }) }

// dialled returns both ends of a connection to a port of the host: the one that Dial returns and the
// peer's.
func dialled(t *testing.T, l *Life, network string) (conn, peer net.Conn) {
	t.Helper()
	if network == "udp" {
		u, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		require.NoError(t, err)
		conn, err = l.Dial(t.Context(), network, u.LocalAddr().(*net.UDPAddr).Port)
		require.NoError(t, err)
		t.Cleanup(func() { conn.Close(); u.Close() })
		return conn, udpPeer{u, conn.LocalAddr()}
	}
	listener, err := net.Listen(network, "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	conn, err = l.Dial(t.Context(), network, listener.Addr().(*net.TCPAddr).Port)
	require.NoError(t, err)
	peer, err = listener.Accept()
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close(); peer.Close() })
	return conn, peer
}

// A udpPeer is a UDP socket that writes to one address.
type udpPeer struct {
	*net.UDPConn
	to net.Addr
}

func (p udpPeer) Write(b []byte) (int, error) { return p.UDPConn.WriteTo(b, p.to) }

// within10 returns the error of f, and fails the test if f takes 10 s.
func within10(t *testing.T, f func() error) error {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- f() }()
	select {
	case err := <-done:
		return err
	case <-time.After(10 * time.Second):
		t.Fatal("the call does not end")
		return nil
	}
}

func reads(conn net.Conn) func() error {
	return func() error {
		_, err := conn.Read(make([]byte, 100))
		return err
	}
}

var errOops = fmt.Errorf("%w: BUG: oops", guestfault.ErrGuest)

func TestAConnectionEndsWithTheMachineAndSaysWhy(t *testing.T) {
	for _, network := range []string{"tcp", "udp"} {
		t.Run(network, func(t *testing.T) {
			l := newLife()
			conn, _ := dialled(t, l, network)
			require.NoError(t, conn.SetDeadline(time.Now().Add(time.Hour)))
			time.AfterFunc(10*time.Millisecond, func() { l.End(errOops) })
			check := func(op string, err error) {
				t.Helper()
				require.ErrorIs(t, err, guestfault.ErrGuest)
				require.NotErrorIs(t, err, net.ErrClosed)
				require.NotErrorIs(t, err, os.ErrDeadlineExceeded)
				var op2 *net.OpError
				require.ErrorAs(t, err, &op2)
				require.False(t, op2.Timeout())
				require.EqualError(t, err, fmt.Sprintf("%s %s %v->%v: the guest failed: BUG: oops", op, network, conn.LocalAddr(), conn.RemoteAddr()))
			}
			check("read", within10(t, reads(conn)))
			require.NoError(t, conn.SetDeadline(time.Now().Add(time.Hour)), "SetDeadline does nothing now")
			check("read", within10(t, reads(conn)))
			check("write", within10(t, func() error {
				_, err := conn.Write([]byte("hello"))
				return err
			}))
			require.NoError(t, conn.Close())
			require.ErrorIs(t, within10(t, reads(conn)), net.ErrClosed, "the test has closed the connection")
		})
	}
}

// The write blocks, because the peer reads nothing.
func TestAWriteUnderWayEndsWithTheMachine(t *testing.T) {
	l := newLife()
	conn, _ := dialled(t, l, "tcp")
	begun := make(chan struct{})
	time.AfterFunc(50*time.Millisecond, func() { close(begun); l.End(errOops) })
	require.ErrorIs(t, within10(t, func() (err error) {
		for err == nil {
			_, err = conn.Write(make([]byte, 1<<20))
		}
		return err
	}), guestfault.ErrGuest)
	<-begun
	require.ErrorIs(t, within10(t, func() error {
		_, err := conn.(io.ReaderFrom).ReadFrom(strings.NewReader("more"))
		return err
	}), guestfault.ErrGuest)
}

func TestDataThatArrivedBeforeTheEndIsRead(t *testing.T) {
	for network, read := range map[string]map[string]func(net.Conn, []byte) (int, error){
		"tcp": {
			"Read": net.Conn.Read,
			"WriteTo": func(conn net.Conn, b []byte) (int, error) {
				var text strings.Builder
				_, err := conn.(io.WriterTo).WriteTo(&text)
				return copy(b, text.String()), err
			},
		},
		"udp": {
			"Read":        net.Conn.Read,
			"ReadFrom":    func(c net.Conn, b []byte) (int, error) { n, _, err := c.(net.PacketConn).ReadFrom(b); return n, err },
			"ReadFromUDP": func(c net.Conn, b []byte) (int, error) { n, _, err := c.(*udpConn).ReadFromUDP(b); return n, err },
			"ReadFromUDPAddrPort": func(c net.Conn, b []byte) (int, error) {
				n, _, err := c.(*udpConn).ReadFromUDPAddrPort(b)
				return n, err
			},
			"ReadMsgUDP": func(c net.Conn, b []byte) (int, error) {
				n, _, _, _, err := c.(*udpConn).ReadMsgUDP(b, nil)
				return n, err
			},
			"ReadMsgUDPAddrPort": func(c net.Conn, b []byte) (int, error) {
				n, _, _, _, err := c.(*udpConn).ReadMsgUDPAddrPort(b, nil)
				return n, err
			},
		},
	} {
		for name, read := range read {
			t.Run(network+" "+name, func(t *testing.T) {
				l := newLife()
				conn, peer := dialled(t, l, network)
				_, err := peer.Write([]byte("last words"))
				require.NoError(t, err)
				l.End(errOops)
				<-l.ctx.Done()
				var got string
				err = within10(t, func() (err error) {
					for err == nil {
						var n int
						b := make([]byte, 100)
						n, err = read(conn, b)
						got += string(b[:max(0, n)])
					}
					return err
				})
				require.Equal(t, "last words", got)
				require.ErrorIs(t, err, guestfault.ErrGuest)
			})
		}
	}
}

func TestTheEndOfAStreamIsKeptUnlessTheGuestFailed(t *testing.T) {
	for _, c := range []struct{ why, want error }{{ErrPoweredOff, io.EOF}, {ErrClosed, io.EOF}, {errOops, guestfault.ErrGuest}} {
		l := newLife()
		conn, peer := dialled(t, l, "tcp")
		_, err := peer.Write([]byte("bye"))
		require.NoError(t, err)
		require.NoError(t, peer.Close())
		l.End(c.why)
		text, err := io.ReadAll(struct{ io.Reader }{conn})
		require.Equal(t, "bye", string(text))
		if c.want == io.EOF {
			require.NoError(t, err)
			_, err = conn.(io.WriterTo).WriteTo(io.Discard)
			require.NoError(t, err)
		} else {
			require.ErrorIs(t, err, c.want)
			_, err = conn.(io.WriterTo).WriteTo(io.Discard)
			require.ErrorIs(t, err, c.want)
		}
	}
}

// The host's kernel ends the connections of a QEMU that exits before the harness knows why QEMU has exited.
func TestAConnectionThatBreaksWithQEMUWaitsForTheReason(t *testing.T) {
	for name, end := range map[string]func(*net.TCPConn){
		"end":   func(*net.TCPConn) {},
		"reset": func(c *net.TCPConn) { c.SetLinger(0) },
	} {
		t.Run(name, func(t *testing.T) {
			var going atomic.Bool
			l := NewLife(going.Load)
			conn, peer := dialled(t, l, "tcp")
			going.Store(true)
			end(peer.(*net.TCPConn))
			peer.Close()
			time.AfterFunc(50*time.Millisecond, func() { l.End(errOops) })
			require.ErrorIs(t, within10(t, reads(conn)), guestfault.ErrGuest)
		})
	}
	t.Run("while QEMU runs, the end is the guest's", func(t *testing.T) {
		l := newLife()
		conn, peer := dialled(t, l, "tcp")
		peer.Close()
		require.Equal(t, io.EOF, within10(t, reads(conn)))
	})
}

func TestADialEndsWithTheMachine(t *testing.T) {
	l := newLife()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	l.End(errOops)
	_, err = l.Dial(t.Context(), "tcp", listener.Addr().(*net.TCPAddr).Port)
	require.ErrorIs(t, err, guestfault.ErrGuest)
}

// A method that a connection inherits from package net would read or write after the end of the machine.
func TestNoMethodThatReadsOrWritesIsInherited(t *testing.T) {
	inherited := map[string]bool{
		"LocalAddr": true, "RemoteAddr": true, "File": true, "SyscallConn": true, "MultipathTCP": true,
		"SetReadBuffer": true, "SetWriteBuffer": true, "SetLinger": true, "SetNoDelay": true,
		"SetKeepAlive": true, "SetKeepAlivePeriod": true, "SetKeepAliveConfig": true,
		"WriteToUDP": true, "WriteToUDPAddrPort": true, // a connected socket refuses them
	}
	for _, conn := range []any{&tcpConn{}, &udpConn{}} {
		typ := reflect.TypeOf(conn)
		for i := range typ.NumMethod() {
			method := typ.Method(i)
			f := runtime.FuncForPC(method.Func.Pointer())
			file, _ := f.FileLine(f.Entry())
			if file != "<autogenerated>" || inherited[method.Name] {
				continue
			}
			if typ == reflect.TypeFor[*udpConn]() && method.Name == "WriteTo" {
				continue // a connected socket refuses it
			}
			t.Errorf("%v.%s is inherited: write a method that ends with the machine, or list it here if it neither reads nor writes", typ, method.Name)
		}
	}
}
