package integration

import (
	"context"
	"io"
	"net"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"guesthouse.example/harness"
	"guesthouse.example/harness/harnesstest"
)

// Both ends remember a closed TCP connection: QEMU's user network for 10 s, the guest's kernel for
// 60 s. Neither prevents a save. A restored machine, whose kernel still remembers the connection,
// answers a new connection from the same port.
func TestAMachineIsSavedAsSoonAsItsConnectionsHaveClosed(t *testing.T) {
	t.Parallel()
	target := oneTarget(t)
	spec := harnesstest.Spec(t, target, "./guests/lost")
	spec.Ports = []string{"udp/4242", "tcp/4242"}
	m := harnesstest.Boot(t, savable(spec))
	spec.Accel = harness.TCG
	for _, c := range []struct {
		first string
		close func(net.Conn)
	}{
		{"host", func(net.Conn) {}},
		{"guest", func(conn net.Conn) {
			_, err := conn.Write([]byte{0})
			require.NoError(t, err)
			_, err = conn.Read(make([]byte, 1))
			require.Equal(t, io.EOF, err, "the guest has closed its end")
		}},
	} {
		conn := dialFrom(t, m, 0)
		echoes(t, conn, "before")
		c.close(conn)
		from := conn.LocalAddr().(*net.TCPAddr).Port
		require.NoError(t, conn.Close())

		spec.From = m.Save(filepath.Join(t.TempDir(), "template"))
		again, begin := restored(t, spec), time.Now()
		echoes(t, dialFrom(t, again, from), "after")
		t.Logf("the %s has closed first: the restored machine answered on port %d after %v", c.first, from, time.Since(begin))
	}
	echoes(t, dialFrom(t, m, 0), "the machine that was saved still works")
}

// dialFrom connects to the machine's TCP port from a port of the host, or from any if it is 0.
func dialFrom(t *testing.T, m *harnesstest.Machine, from int) net.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 4*harnesstest.Within)
	defer cancel()
	d := net.Dialer{
		LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: from},
		Control: func(_, _ string, raw syscall.RawConn) error { // the host's kernel remembers the connection too
			var err error
			raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) })
			return err
		},
	}
	for _, port := range m.Ports() {
		if port.Network == "tcp" {
			conn, err := d.DialContext(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port.Host)))
			require.NoError(t, err)
			require.NoError(t, conn.SetDeadline(time.Now().Add(4*harnesstest.Within)))
			t.Cleanup(func() { conn.Close() })
			return conn
		}
	}
	t.Fatal("no TCP port")
	return nil
}
