package echo_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"guesthouse.example/guest/socketservice"
	"guesthouse.example/internal/tied"
)

// floodVariable makes the test binary flood a port of this host with UDP datagrams until
// it is killed.
const floodVariable = "GUESTHOUSE_TEST_FLOOD"

func flood(port string) {
	conn, err := net.Dial("udp", "[::1]:"+port)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	for packet := make([]byte, 64); ; {
		_, _ = conn.Write(packet)
	}
}

// BenchmarkBesideADeafClient measures how much a client that never reads slows other
// clients down: p99 of a ping-pong, with and without that client.
func BenchmarkBesideADeafClient(b *testing.B) {
	for _, deaf := range []string{"without", "with"} {
		for _, k := range kinds {
			b.Run(k.name+"/"+deaf, func(b *testing.B) {
				s, _ := start(b, 0)
				if deaf == "with" {
					fill(b, dial(b, "tcp", "::1", s))
				}
				fd, buf := connect(b, k.kind, s), make([]byte, 64)
				pingpong(b, fd, buf)
				var took []time.Duration
				for b.Loop() {
					begin := time.Now()
					pingpong(b, fd, buf)
					took = append(took, time.Since(begin))
				}
				slices.Sort(took)
				b.ReportMetric(float64(took[len(took)*99/100])/1e3, "p99-µs")
			})
		}
	}
}

// BenchmarkRegisterDuringAFlood measures the time from a call of Register to the first
// handler call for the new socket, while another process floods the echo service on the
// same loop with UDP. If this process flooded the service, with too few processors Go's
// scheduler would run the flood for 10 ms at a time.
func BenchmarkRegisterDuringAFlood(b *testing.B) {
	s, _ := start(b, 0)
	flooder := exec.CommandContext(b.Context(), os.Args[0])
	flooder.Env = append(os.Environ(), floodVariable+"="+strconv.Itoa(s.Port()))
	ended, err := tied.Start(flooder)
	require.NoError(b, err)
	defer func() {
		_ = flooder.Process.Kill()
		<-ended
	}()
	before := s.calls(b, "service_udp")
	require.Eventually(b, func() bool { return s.calls(b, "service_udp") > before }, 10*time.Second, time.Millisecond)
	called := make(chan bool, 1)
	svc := s.loop.Define("late", func(ev *socketservice.Event) {
		_ = ev.Service.Unregister()
		called <- true
	}, 1)
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	require.NoError(b, err)
	defer unix.Close(fds[0])
	defer unix.Close(fds[1])
	_, err = unix.Write(fds[1], []byte("x"))
	require.NoError(b, err)
	var took []time.Duration
	for b.Loop() {
		begin := time.Now()
		require.NoError(b, svc.Register([]unix.PollFd{{Fd: int32(fds[0]), Events: unix.POLLIN}}, nil))
		<-called
		took = append(took, time.Since(begin))
	}
	require.Greater(b, s.calls(b, "service_udp"), before)
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2])/1e3, "p50-µs")
	b.ReportMetric(float64(took[len(took)*99/100])/1e3, "p99-µs")
	b.ReportMetric(float64(took[len(took)-1])/1e3, "max-µs")
}
