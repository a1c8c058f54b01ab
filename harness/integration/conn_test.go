package integration

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"guesthouse.example/harness"
	"guesthouse.example/harness/harnesstest"
	"guesthouse.example/host/traffic"
)

// oops makes the guest's kernel print a crash report while the guest runs on.
const oops = "sh echo '<0>BUG: unable to handle page fault for address: 0' > /dev/kmsg"

// When the machine ends for any reason, every read and write of its connections ends at once with the
// cause. Data that has arrived is not lost.
func TestConnectionsEndWithTheMachine(t *testing.T) {
	t.Parallel()
	target := oneTarget(t)
	for name, c := range map[string]struct {
		end    func(*testing.T, *harness.Machine)
		says   string
		failed bool // the guest is to blame
		clean  bool
	}{
		"the guest fails and runs on": {func(t *testing.T, m *harness.Machine) {
			require.NoError(t, m.Console().Send(t.Context(), oops))
		}, "the guest failed: [", true, false},
		"the guest's kernel panics": {func(t *testing.T, m *harness.Machine) {
			require.NoError(t, m.Console().Send(t.Context(), "sh echo c > /proc/sysrq-trigger"))
		}, "the guest failed: ", true, false},
		"the guest powers off": {func(t *testing.T, m *harness.Machine) {
			require.NoError(t, m.Console().Send(t.Context(), "poweroff"))
		}, "the machine has powered off", false, true},
		"QEMU is killed": {func(t *testing.T, m *harness.Machine) {
			require.NoError(t, unix.Kill(m.Result().PID, unix.SIGKILL))
		}, "QEMU ended: signal: killed", false, false},
		"the machine is closed": {func(t *testing.T, m *harness.Machine) {
			go m.Close()
		}, "the machine was closed", false, true},
	} {
		t.Run(name, func(t *testing.T) {
			spec := echoSpec(t, target)
			spec.Dir = t.TempDir()
			var templates harness.TemplateCache
			m, err := harness.Boot(t.Context(), from(&templates, spec))
			require.NoError(t, err)
			defer m.Close()
			ends := func(err error) {
				t.Helper()
				require.ErrorContains(t, err, c.says)
				require.Equal(t, c.failed, errors.Is(err, harness.ErrGuest))
				require.NotErrorIs(t, err, net.ErrClosed)
				require.False(t, os.IsTimeout(err))
			}
			open := func(network string) net.Conn {
				conn, err := m.Dial(t.Context(), network, echoPort)
				require.NoError(t, err)
				require.NoError(t, conn.SetDeadline(time.Now().Add(time.Hour)))
				t.Cleanup(func() { conn.Close() })
				echoes(t, conn, "before")
				return conn
			}
			stream, datagrams := open("tcp"), open("udp")
			kept := map[string]net.Conn{"tcp": open("tcp"), "udp": open("udp")}
			for network, conn := range kept {
				_, err := conn.Write([]byte("last words"))
				require.NoError(t, err)
				arrived(t, conn, network)
			}

			failed := make(chan error, 3)
			for _, conn := range []net.Conn{stream, datagrams} {
				go func() {
					_, err := conn.Read(make([]byte, 100))
					failed <- err
				}()
			}
			go func() {
				for {
					if _, err := traffic.Load(t.Context(), loadOf(m), traffic.LoadConfig{Duration: time.Hour, Timeout: time.Hour}); err != nil {
						failed <- err
						return
					}
				}
			}()
			c.end(t, m)
			for range 3 {
				select {
				case err := <-failed:
					if err != io.EOF || !c.clean {
						ends(err)
					}
				case <-time.After(4 * harnesstest.Within):
					t.Fatal("a connection does not end with the machine")
				}
			}
			_, err = datagrams.Write([]byte("after"))
			ends(err)
			for network, conn := range kept {
				got := make([]byte, 100)
				n, err := conn.Read(got)
				require.NoError(t, err, network)
				require.Equal(t, "last words", string(got[:n]), network)
				if _, err = conn.Read(got); err != io.EOF || !c.clean {
					ends(err)
				}
			}
		})
	}
}

// loadOf returns how package traffic dials the machine's echo service.
func loadOf(m *harness.Machine) traffic.DialFunc {
	return func(ctx context.Context, network string) (net.Conn, error) { return m.Dial(ctx, network, echoPort) }
}

// arrived waits until the connection has data, and does not consume it.
func arrived(t *testing.T, conn net.Conn, network string) {
	t.Helper()
	raw, err := conn.(syscall.Conn).SyscallConn()
	require.NoError(t, err)
	require.NoError(t, raw.Read(func(fd uintptr) bool {
		n, _, err := unix.Recvfrom(int(fd), make([]byte, 1), unix.MSG_PEEK|unix.MSG_DONTWAIT)
		return n > 0 || !errors.Is(err, unix.EAGAIN)
	}), network)
}
