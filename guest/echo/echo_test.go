package echo_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"guesthouse.example/guest/echo"
	"guesthouse.example/guest/socketservice"
	"guesthouse.example/guest/zephyrlog"
)

const patience = 20 * time.Second

func TestMain(m *testing.M) {
	if port := os.Getenv(floodVariable); port != "" {
		flood(port)
	}
	goleak.VerifyTestMain(m)
}

// console collects log lines and lets a test wait for one.
type console struct {
	mu    sync.Mutex
	text  bytes.Buffer
	wrote chan struct{}
}

func (c *console) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.text.Write(b)
	close(c.wrote)
	c.wrote = make(chan struct{})
	return len(b), nil
}

// expect waits until the console has shown the line a number of times.
func (c *console) expect(t *testing.T, line string, times int) {
	t.Helper()
	deadline := time.After(patience)
	for {
		c.mu.Lock()
		text, wrote := c.text.String(), c.wrote
		c.mu.Unlock()
		if strings.Count(text, line) >= times {
			return
		}
		select {
		case <-wrote:
		case <-deadline:
			require.FailNow(t, "line not on the console", "%d× %q in\n%s", times, line, text)
		}
	}
}

func (c *console) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.text.String()
}

// A rig is a server on a loop of its own.
type rig struct {
	*echo.Server
	loop *socketservice.Loop
}

func start(t testing.TB, clients int) (*rig, *console) {
	t.Helper()
	con := &console{wrote: make(chan struct{})}
	log := slog.New(zephyrlog.New(con, nil))
	loop := socketservice.NewLoop(socketservice.Config{Logger: log})
	s := echo.New(echo.Config{Port: -1, Clients: clients, Loop: loop, Log: log})
	require.NoError(t, loop.Start())
	require.NoError(t, s.Start())
	t.Cleanup(func() {
		s.Stop()
		require.NoError(t, loop.Stop())
	})
	return &rig{s, loop}, con
}

func dial(t testing.TB, network, host string, s interface{ Port() int }) net.Conn {
	t.Helper()
	conn, err := net.DialTimeout(network, net.JoinHostPort(host, strconv.Itoa(s.Port())), patience)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	require.NoError(t, conn.SetDeadline(time.Now().Add(patience)))
	return conn
}

// roundtrip sends the text and requires it back.
func roundtrip(t testing.TB, conn net.Conn, text string) {
	t.Helper()
	_, err := io.WriteString(conn, text)
	require.NoError(t, err)
	got := make([]byte, len(text))
	_, err = io.ReadFull(conn, got)
	require.NoError(t, err)
	require.Equal(t, text, string(got))
}

// reset closes a connection with a reset instead of an end.
func reset(t testing.TB, conn net.Conn) {
	t.Helper()
	require.NoError(t, conn.(*net.TCPConn).SetLinger(0))
	require.NoError(t, conn.Close())
}

func noise(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{}).Read(b)
	return b
}

var hosts = map[string]string{"IPv4": "127.0.0.1", "IPv6": "::1"}

func TestUDP(t *testing.T) {
	for name, host := range hosts {
		t.Run(name, func(t *testing.T) {
			s, _ := start(t, 0)
			a, b := dial(t, "udp", host, s), dial(t, "udp", host, s)
			for i := range 100 {
				roundtrip(t, a, fmt.Sprint("a", i))
				roundtrip(t, b, fmt.Sprint("b", i))
			}
		})
	}
}

func TestTheEmptyAndTheLongestDatagramComeBack(t *testing.T) {
	s, _ := start(t, 0)
	conn := dial(t, "udp", "::1", s)
	got := make([]byte, 4096)
	for _, size := range []int{0, 1, echo.BufferSize} {
		sent := noise(size)
		_, err := conn.Write(sent)
		require.NoError(t, err)
		n, err := conn.Read(got)
		require.NoError(t, err)
		require.Equal(t, sent, got[:n])
	}
	require.Zero(t, s.Dropped())
}

// The server does not answer with a part of a datagram.
func TestAnOversizedDatagramIsDroppedAndCounted(t *testing.T) {
	s, con := start(t, 0)
	conn := dial(t, "udp", "::1", s)
	const rounds = 5
	for i := range rounds {
		// Loopback keeps the order, so an answer to an oversized datagram would come first.
		for _, size := range []int{echo.BufferSize + 1, 3, 3000, 60000, 4} {
			_, err := conn.Write(noise(size))
			require.NoError(t, err)
		}
		for _, size := range []int{3, 4} {
			got := make([]byte, 4096)
			n, err := conn.Read(got)
			require.NoError(t, err)
			require.Equal(t, noise(size), got[:n])
		}
		require.EqualValues(t, 3*(i+1), s.Dropped())
	}
	require.EqualValues(t, 3*rounds, s.stats(t, "service_udp").Errors)
	const line = "<err> net_echo_server_svc_sample: Datagram of more than 1500 bytes dropped\n"
	require.Equal(t, 4, strings.Count(con.String(), line), "the 1st, 2nd, 4th and 8th of 15")
}

func TestTCP(t *testing.T) {
	for name, host := range hosts {
		t.Run(name, func(t *testing.T) {
			s, con := start(t, 0)
			conn := dial(t, "tcp", host, s)
			roundtrip(t, conn, "hello")
			roundtrip(t, conn, strings.Repeat("x", 4*echo.BufferSize))
			require.NoError(t, conn.Close())
			addr := map[string]string{"IPv4": "::ffff:127.0.0.1", "IPv6": "::1"}[name]
			con.expect(t, "Connection from "+addr+" closed\n", 1)
		})
	}
}

// The lines are those of samples/net/sockets/echo_service/src/main.c.
func TestTheConsoleLinesAreThoseOfZephyrsSample(t *testing.T) {
	s, con := start(t, 1)
	const stamp = `(?m)^\[\d+:\d\d:\d\d\.\d{3},\d{3}\] `
	first := dial(t, "tcp", "::1", s)
	roundtrip(t, first, "x")
	over := dial(t, "tcp", "::1", s)
	_, err := io.ReadAll(over)
	require.NoError(t, err)
	require.NoError(t, first.Close())
	con.expect(t, " closed\n", 1)
	for _, line := range []string{
		fmt.Sprintf("<inf> net_echo_server_svc_sample: Single-threaded TCP/UDP echo server waits for a connection on port %d$", s.Port()),
		`<inf> net_echo_server_svc_sample: Connection from ::1 \(\d+\)$`,
		`<wrn> net_echo_server_svc_sample: Max capacity reached$`,
		`<inf> net_echo_server_svc_sample: Connection from ::1 closed$`,
	} {
		require.Regexp(t, stamp+line, con.String())
	}
}

func TestTheServicesAreThoseOfZephyrsSample(t *testing.T) {
	loop := socketservice.NewLoop(socketservice.Config{})
	echo.New(echo.Config{Loop: loop})
	var got []string
	for s := range loop.All() {
		require.Regexp(t, `^echo/echo\.go:\d+$`, s.Owner())
		got = append(got, fmt.Sprint(s.Name(), " ", s.Slots()))
	}
	require.Equal(t, []string{"service_udp 1", "service_accept 1", "service_tcp 17"}, got)
}

func TestAStreamComesBackWhole(t *testing.T) {
	s, _ := start(t, 0)
	conn := dial(t, "tcp", "::1", s)
	sent := noise(64 << 10)
	go func() { _, _ = conn.Write(sent) }()
	hash := sha256.New()
	_, err := io.CopyN(hash, conn, int64(len(sent)))
	require.NoError(t, err)
	want := sha256.Sum256(sent)
	require.Equal(t, want[:], hash.Sum(nil))
}

// After the client has ended its direction, the server sends every byte back and
// then ends the stream.
func TestAClientThatHalfClosesGetsEveryByte(t *testing.T) {
	s, con := start(t, 0)
	conn := dial(t, "tcp", "::1", s)
	sent := noise(1 << 20)
	wrote := make(chan error, 1)
	go func() {
		_, err := conn.Write(sent)
		if err == nil {
			err = conn.(*net.TCPConn).CloseWrite()
		}
		wrote <- err
	}()
	got, err := io.ReadAll(conn)
	require.NoError(t, err)
	require.NoError(t, <-wrote)
	require.True(t, bytes.Equal(sent, got))
	con.expect(t, "Connection from ::1 closed\n", 1)
}

// fill writes without reading until the server reads no more. It returns how many
// bytes it wrote.
func fill(t testing.TB, conn net.Conn) (sent int) {
	t.Helper()
	chunk := noise(64 << 10)
	for {
		// Only a pause shows that the server reads no more.
		require.NoError(t, conn.SetWriteDeadline(time.Now().Add(200*time.Millisecond)))
		n, err := conn.Write(chunk)
		sent += n
		if err != nil {
			require.ErrorIs(t, err, os.ErrDeadlineExceeded)
			require.NoError(t, conn.SetDeadline(time.Now().Add(patience)))
			return sent
		}
	}
}

// In Zephyr's sample such a client stops every service.
func TestAClientThatNeverReadsDoesNotHarmOthers(t *testing.T) {
	s, con := start(t, 0)
	deaf := dial(t, "tcp", "::1", s)
	sent := fill(t, deaf)
	require.Greater(t, sent, echo.BufferSize)

	udp, tcp := dial(t, "udp", "::1", s), dial(t, "tcp", "::1", s)
	for range 100 {
		roundtrip(t, udp, "udp")
		roundtrip(t, tcp, "tcp")
	}

	// When the client reads at last, no byte is missing.
	require.NoError(t, deaf.(*net.TCPConn).CloseWrite())
	got, err := io.ReadAll(deaf)
	require.NoError(t, err)
	require.Len(t, got, sent)
	chunk := noise(64 << 10)
	for i := range got {
		if got[i] != chunk[i%len(chunk)] {
			require.Equal(t, chunk[i%len(chunk)], got[i], "byte %d", i)
		}
	}
	con.expect(t, " closed\n", 1)
}

func TestClientReset(t *testing.T) {
	s, con := start(t, 1)
	conn := dial(t, "tcp", "::1", s)
	roundtrip(t, conn, "x")
	reset(t, conn)
	con.expect(t, "<err> net_echo_server_svc_sample: recv: -104\n", 1)
	con.expect(t, "Connection from ::1 closed\n", 1)

	deaf := dial(t, "tcp", "::1", s)
	fill(t, deaf)
	reset(t, deaf)
	con.expect(t, "Connection from ::1 closed\n", 2)
	roundtrip(t, dial(t, "tcp", "::1", s), "the slot is free")
}

func TestStopClosesConnectionsAndPort(t *testing.T) {
	loop := socketservice.NewLoop(socketservice.Config{})
	s := echo.New(echo.Config{Port: -1, Loop: loop})
	require.Zero(t, s.Port())
	require.NoError(t, loop.Start())
	require.NoError(t, s.Start())
	port := s.Port()
	require.Error(t, s.Start(), "a second start")
	conn := dial(t, "tcp", "::1", s)
	roundtrip(t, conn, "x")
	s.Stop()
	s.Stop()
	_, err := io.ReadAll(conn)
	require.NoError(t, err)
	require.Zero(t, s.Port())
	_, err = net.DialTimeout("tcp", net.JoinHostPort("::1", strconv.Itoa(port)), patience)
	require.Error(t, err)

	again := echo.New(echo.Config{Port: port, Loop: loop})
	require.NoError(t, again.Start(), "the port is free at once")
	again.Stop()
	require.NoError(t, loop.Stop())
}

func TestStartReportsAnOccupiedPort(t *testing.T) {
	s, _ := start(t, 0)
	loop := socketservice.NewLoop(socketservice.Config{})
	second := echo.New(echo.Config{Port: s.Port(), Loop: loop})
	require.NoError(t, loop.Start())
	require.ErrorContains(t, second.Start(), "start echo service: listen tcp port "+strconv.Itoa(s.Port())+": bind: address already in use")
	require.NoError(t, loop.Stop())
}

func TestStartFailsWithTheLoop(t *testing.T) {
	loop := socketservice.NewLoop(socketservice.Config{PollMax: 3})
	s := echo.New(echo.Config{Port: -1, Loop: loop})
	result := make(chan error)
	go func() { result <- s.Start() }()
	require.ErrorContains(t, loop.Start(), "at least 20 needed")
	require.ErrorIs(t, <-result, unix.EIO)
	require.Zero(t, s.Port())
}
