package echotest_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"guesthouse.example/host/echotest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A server is an echo service with limits, on loopback.
type server struct {
	udp      net.PacketConn
	tcp      net.Listener
	datagram int           // bytes of the largest one that is echoed
	alone    bool          // datagrams that arrive together are lost
	slots    chan struct{} // one for each TCP client
	refuses  bool
	deaf     bool        // a half-close after five bytes loses them
	turn     *sync.Mutex // of the one thread for all TCP clients; nil for one each
	closed   string      // the address in the line at a close
	console  *console
	wg       sync.WaitGroup
}

// console collects lines for Expect.
type console struct {
	mu    sync.Mutex
	text  string
	more  chan struct{}
	after int
}

func (c *console) print(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.text += fmt.Sprintf(format+"\n", args...)
	close(c.more)
	c.more = make(chan struct{})
}

func (c *console) Expect(ctx context.Context, pattern string) ([]string, error) {
	re := regexp.MustCompile(pattern)
	for {
		c.mu.Lock()
		at, more := re.FindStringIndex(c.text[c.after:]), c.more
		if at != nil {
			match := c.text[c.after+at[0] : c.after+at[1]]
			c.after += at[1]
			c.mu.Unlock()
			return []string{match}, nil
		}
		c.mu.Unlock()
		select {
		case <-more:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// zephyr returns a server with the limits that Zephyr's sample showed on qemu_x86.
func zephyr(t *testing.T) *server {
	return start(t, &server{datagram: 1472, alone: true, slots: make(chan struct{}, 3), deaf: true, turn: new(sync.Mutex), closed: "::7f00:1"})
}

func start(t *testing.T, s *server) *server {
	t.Helper()
	s.console = &console{more: make(chan struct{})}
	var err error
	s.udp, err = net.ListenPacket("udp4", "127.0.0.1:0")
	require.NoError(t, err)
	s.tcp, err = net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	stop := make(chan struct{})
	s.wg.Go(s.serveUDP)
	s.wg.Go(func() { s.serveTCP(stop) })
	t.Cleanup(func() {
		close(stop)
		s.udp.Close()
		s.tcp.Close()
		s.wg.Wait()
	})
	return s
}

func (s *server) dial(ctx context.Context, network string) (net.Conn, error) {
	var d net.Dialer
	if network == "udp" {
		return d.DialContext(ctx, network, s.udp.LocalAddr().String())
	}
	return d.DialContext(ctx, network, s.tcp.Addr().String())
}

func (s *server) service() echotest.Service {
	return echotest.Service{Dial: s.dial, Console: s.console, Unpromised: 200 * time.Millisecond}
}

func (s *server) serveUDP() {
	buf := make([]byte, 1<<16)
	for {
		_ = s.udp.SetReadDeadline(time.Time{})
		n, from, err := s.udp.ReadFrom(buf)
		if err != nil {
			return
		}
		if n > s.datagram {
			continue
		}
		answer := append([]byte(nil), buf[:n]...)
		together := 1
		for s.alone {
			// A client that waits for each answer never has a second datagram on its way.
			_ = s.udp.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
			if _, _, err := s.udp.ReadFrom(buf); err != nil {
				if !errors.Is(err, os.ErrDeadlineExceeded) {
					return
				}
				break
			}
			together++
		}
		if together == 1 {
			_, _ = s.udp.WriteTo(answer, from)
		}
	}
}

func (s *server) serveTCP(stop chan struct{}) {
	for {
		if !s.refuses { // the backlog has the surplus clients
			select {
			case s.slots <- struct{}{}:
			case <-stop:
				return
			}
		}
		conn, err := s.tcp.Accept()
		if err != nil {
			return
		}
		if s.refuses {
			select {
			case s.slots <- struct{}{}:
			default:
				conn.Close()
				continue
			}
		}
		s.console.print("[00:00:01.000,000] <inf> net_echo_server_svc_sample: Connection from ::ffff:192.0.2.2 (%d)", len(s.slots))
		done := make(chan struct{})
		s.wg.Go(func() { // a client that is connected ends with the server
			select {
			case <-stop:
				conn.Close()
			case <-done:
			}
		})
		s.wg.Go(func() {
			defer close(done)
			s.serveClient(conn.(*net.TCPConn))
			conn.Close()
			s.console.print("[00:00:02.000,000] <inf> net_echo_server_svc_sample: Connection from %s closed", s.closed)
			<-s.slots
		})
	}
}

func (s *server) serveClient(conn *net.TCPConn) {
	buf := make([]byte, 4096)
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return
		}
		if s.deaf && n == 5 {
			_, _ = io.Copy(io.Discard, conn) // until the half-close
			return
		}
		if s.turn != nil {
			s.turn.Lock()
		}
		_, err = conn.Write(buf[:n])
		if s.turn != nil {
			s.turn.Unlock()
		}
		if err != nil {
			return
		}
	}
}

func saw(r echotest.Report, check string) string {
	for _, row := range r.Rows {
		if row.Check == check {
			return row.Saw
		}
	}
	return "no such check"
}

func TestAServiceWithZephyrsLimits(t *testing.T) {
	report := echotest.Run(t.Context(), zephyr(t).service(), echotest.Zephyr)
	t.Logf("\n%s", echotest.Table(report))
	require.NoError(t, report.Err())
	for check, want := range map[string]string{
		"console, a client connects and closes": "both lines",
		"UDP, 1 in flight":                      "22 of 22",
		"UDP, 1472 bytes":                       "whole",
		"UDP, 1500 bytes":                       "none",
		"UDP, 2000 bytes":                       "none",
		"TCP, a stream":                         "every byte",
		"TCP, clients at once":                  "3, then silence",
		"TCP, a half-close after 5 bytes":       "0 bytes, then the end of the stream",
		"beside a TCP client that never reads":  "only UDP answers",
	} {
		require.Equal(t, want, saw(report, check), check)
	}
	require.NotEqual(t, "22 of 22", saw(report, "UDP, 16 in flight"))
}

func TestAServiceThatBreaksWhatItPromises(t *testing.T) {
	s := zephyr(t).service()
	s.Timeout = time.Second
	report := echotest.Run(t.Context(), s, echotest.Guesthouse)
	kept := map[string]bool{"UDP, 1 in flight": true, "UDP, 1472 bytes": true, "UDP, 2000 bytes": true, "TCP, a half-close after 20000 bytes": true}
	for _, row := range report.Rows {
		if row.Check == "TCP, a stream" {
			continue // with a window of 16, it depends on how the bytes arrive
		}
		require.Equal(t, kept[row.Check], row.Err == nil, "%s: saw %s: %v", row.Check, row.Saw, row.Err)
	}
	require.ErrorContains(t, report.Err(), `guesthouse: TCP, clients at once: saw "3, then silence": 17 are promised: `)
	require.ErrorContains(t, report.Err(), `guesthouse: UDP, 1500 bytes: saw "none": `)
	require.ErrorContains(t, report.Err(), `guesthouse: console, a client connects and closes: saw "only: <inf> net_echo_server_svc_sample: Connection from ::ffff:192.0.2.2 (1)": not within 1s`)
}

func TestAServiceWithoutThoseLimits(t *testing.T) {
	s := start(t, &server{datagram: 1500, slots: make(chan struct{}, 17), refuses: true, closed: "::ffff:192.0.2.2"})
	ours := echotest.Run(t.Context(), s.service(), echotest.Guesthouse)
	require.NoError(t, ours.Err())
	require.Equal(t, "17, then the end of the stream", saw(ours, "TCP, clients at once"))
	require.Equal(t, "20000 bytes, then the end of the stream", saw(ours, "TCP, a half-close after 20000 bytes"))
	require.Equal(t, "TCP and UDP answer", saw(ours, "beside a TCP client that never reads"))

	other := zephyr(t).service()
	other.Console = nil
	zephyrs := echotest.Run(t.Context(), other, echotest.Zephyr)
	require.NoError(t, zephyrs.Err())
	table := echotest.Table(ours, zephyrs)
	t.Logf("\n%s", table)
	require.Regexp(t, `(?m)^CHECK +guesthouse +zephyr *$`, table)
	require.Regexp(t, `(?m)^console, a client connects and closes +both lines +no console +differs$`, table)
	require.Regexp(t, `(?m)^UDP, 1 in flight +22 of 22 +22 of 22 *$`, table)
	require.Regexp(t, `(?m)^TCP, clients at once +17, then the end of the stream +3, then silence +differs$`, table)
	require.NotContains(t, table, "BROKEN")
	require.Equal(t, len(ours.Rows)+1, strings.Count(table, "\n"))
}

func TestChecksEndWithTheirContext(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	gone := errors.New("the machine has ended")
	cancel(gone)
	report := echotest.Run(ctx, zephyr(t).service(), echotest.Zephyr)
	require.ErrorIs(t, report.Err(), gone)
	require.Contains(t, echotest.Table(report), "BROKEN by zephyr: the machine has ended")
}
