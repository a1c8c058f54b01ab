package guestconn

import (
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fill writes until the peer, which does not read, takes no more. It returns the number of bytes.
func fill(t *testing.T, conn net.Conn) (n int) {
	t.Helper()
	for block := make([]byte, 64<<10); ; {
		require.NoError(t, conn.SetWriteDeadline(time.Now().Add(200*time.Millisecond)))
		written, err := conn.Write(block)
		n += written
		if err != nil {
			require.ErrorIs(t, err, os.ErrDeadlineExceeded)
			require.NoError(t, conn.SetWriteDeadline(time.Time{}))
			return n
		}
	}
}

// lingers checks that a connection was closed for its user only: its peer can write as much as it wants until it has
// read all n bytes, and then the next write is answered by a reset.
func lingers(t *testing.T, conn, peer net.Conn, n int) {
	t.Helper()
	require.ErrorIs(t, within10(t, reads(conn)), net.ErrClosed)
	_, err := conn.Write([]byte("more"))
	require.ErrorIs(t, err, net.ErrClosed)
	_, err = conn.(io.ReaderFrom).ReadFrom(http.NoBody)
	require.ErrorIs(t, err, net.ErrClosed)
	require.ErrorIs(t, conn.SetDeadline(time.Now()), net.ErrClosed)
	require.ErrorIs(t, conn.Close(), net.ErrClosed)

	require.NoError(t, within10(t, func() error {
		_, err := peer.Write(make([]byte, 32<<20))
		return err
	}), "the peer is not reset before it has read")
	require.NoError(t, within10(t, func() error {
		got, err := io.Copy(io.Discard, peer)
		require.EqualValues(t, n, got)
		return err
	}))
	isReset(t, peer)
}

// isReset reads and writes until the connection is reset.
func isReset(t *testing.T, peer net.Conn) {
	t.Helper()
	go io.Copy(io.Discard, peer)
	err := within10(t, func() (err error) {
		for err == nil {
			_, err = peer.Write(make([]byte, 1000))
		}
		return err
	})
	require.True(t, errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET), err)
}

func TestACloseDoesNotResetAPeerThatHasNotReadAFullBuffer(t *testing.T) {
	for name, before := range map[string]func(conn, peer net.Conn) error{
		"nothing was received": func(conn, peer net.Conn) error { return nil },
		"bytes are unread": func(conn, peer net.Conn) error {
			_, err := peer.Write([]byte("unread"))
			return err
		},
		"half-closed": func(conn, peer net.Conn) error { return conn.(*tcpConn).CloseWrite() },
		"reads are closed": func(conn, peer net.Conn) error {
			return errors.Join(conn.(*tcpConn).CloseRead(), conn.SetDeadline(time.Time{}))
		},
		"linger 0": func(conn, peer net.Conn) error { return conn.(*tcpConn).SetLinger(0) },
	} {
		t.Run(name, func(t *testing.T) {
			conn, peer := dialled(t, newLife(), "tcp")
			n := fill(t, conn)
			require.NoError(t, before(conn, peer))
			require.NoError(t, conn.Close())
			lingers(t, conn, peer, n)
		})
	}
}

// As net/http does when a request is cancelled: another goroutine closes the connection during a write.
func TestACloseDuringAWrite(t *testing.T) {
	for name, write := range map[string]func(net.Conn) (int64, error){
		"Write": func(c net.Conn) (int64, error) {
			n, err := c.Write(make([]byte, 64<<20))
			return int64(n), err
		},
		"ReadFrom": func(c net.Conn) (int64, error) {
			return c.(io.ReaderFrom).ReadFrom(zeros{})
		},
	} {
		t.Run(name, func(t *testing.T) {
			conn, peer := dialled(t, newLife(), "tcp")
			const before = 1 << 20
			go func() {
				io.CopyN(io.Discard, peer, before)
				conn.Close()
			}()
			n, err := write(conn)
			require.ErrorIs(t, err, net.ErrClosed)
			require.GreaterOrEqual(t, n, int64(before))
			lingers(t, conn, peer, int(n-before))
		})
	}
}

// zeros has no end.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

func TestACloseResetsAPeerWhoseBufferCannotBeFull(t *testing.T) {
	for name, write := range map[string]func(conn, peer net.Conn) error{
		"little was sent": func(conn, peer net.Conn) error {
			_, err := conn.Write(make([]byte, sndspace-2))
			return err
		},
		"little was sent by ReadFrom": func(conn, peer net.Conn) error {
			_, err := conn.(io.ReaderFrom).ReadFrom(io.LimitReader(zeros{}, 1000))
			return err
		},
		"all was read": func(conn, peer net.Conn) error {
			go conn.Write(make([]byte, 1<<20))
			_, err := io.CopyN(io.Discard, peer, 1<<20)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			conn, peer := dialled(t, newLife(), "tcp")
			_, err := peer.Write([]byte("unread"))
			require.NoError(t, err)
			require.NoError(t, within10(t, func() error { return write(conn, peer) }))
			require.NoError(t, conn.Close())
			isReset(t, peer)
		})
	}
}

// VerifyTestMain sees whether the goroutine ends.
func TestALingeringConnectionEndsWithItsPeer(t *testing.T) {
	for name, end := range map[string]func(*net.TCPConn) error{
		"end of the stream": (*net.TCPConn).CloseWrite,
		"close":             (*net.TCPConn).Close, // which resets it
	} {
		t.Run(name, func(t *testing.T) {
			l := newLife()
			conn, peer := dialled(t, l, "tcp")
			fill(t, conn)
			require.NoError(t, conn.Close())
			l.End(errOops) // QEMU has the connection still
			require.NoError(t, end(peer.(*net.TCPConn)))
		})
	}
}

func TestClosedReadsEndWithTheStream(t *testing.T) {
	conn, _ := dialled(t, newLife(), "tcp")
	time.AfterFunc(50*time.Millisecond, func() { conn.(*tcpConn).CloseRead() })
	require.Equal(t, io.EOF, within10(t, reads(conn)), "a read under way")
	require.NoError(t, conn.SetDeadline(time.Time{}))
	require.NoError(t, conn.SetReadDeadline(time.Time{}))
	require.Equal(t, io.EOF, within10(t, reads(conn)))
	n, err := conn.(io.WriterTo).WriteTo(io.Discard)
	require.NoError(t, err)
	require.Zero(t, n)
	_, err = conn.Write([]byte("writes go on"))
	require.NoError(t, err)
}
