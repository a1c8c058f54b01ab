package echo_test

import (
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// connect returns a blocking socket to the server. The tests use it with system
// calls that do not allocate, so that they measure only the server's allocations.
func connect(t testing.TB, kind int, s *rig) int {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET6, kind|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	t.Cleanup(func() { _ = unix.Close(fd) })
	require.NoError(t, unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 20}))
	loopback := [16]byte{15: 1}
	require.NoError(t, unix.Connect(fd, &unix.SockaddrInet6{Port: s.Port(), Addr: loopback}))
	return fd
}

// pingpong sends the buffer and waits for as many bytes. It does not use
// RawSyscall, because a blocked raw call would keep the loop from running.
func pingpong(t testing.TB, fd int, buf []byte) {
	p := uintptr(unsafe.Pointer(&buf[0]))
	_, _, errno := unix.Syscall6(unix.SYS_SENDTO, uintptr(fd), p, uintptr(len(buf)), 0, 0, 0)
	n, _, errno2 := unix.Syscall6(unix.SYS_RECVFROM, uintptr(fd), p, uintptr(len(buf)), unix.MSG_WAITALL, 0, 0)
	for errno2 == unix.EINTR { // a socket with a timeout is not restarted
		n, _, errno2 = unix.Syscall6(unix.SYS_RECVFROM, uintptr(fd), p, uintptr(len(buf)), unix.MSG_WAITALL, 0, 0)
	}
	if errno != 0 || errno2 != 0 || int(n) != len(buf) {
		t.Fatalf("ping-pong: sent: %v, received %d bytes: %v", errno, n, errno2)
	}
}

var kinds = []struct {
	name string
	kind int
}{{"UDP", unix.SOCK_DGRAM}, {"TCP", unix.SOCK_STREAM}}

func TestAnEchoDoesNotAllocate(t *testing.T) {
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			s, _ := start(t, 0)
			fd, buf := connect(t, k.kind, s), make([]byte, 64)
			pingpong(t, fd, buf)
			require.Zero(t, testing.AllocsPerRun(2000, func() { pingpong(t, fd, buf) }))
		})
	}
}

func BenchmarkEcho(b *testing.B) {
	for _, k := range kinds {
		b.Run(k.name, func(b *testing.B) {
			s, _ := start(b, 0)
			fd, buf := connect(b, k.kind, s), make([]byte, 64)
			pingpong(b, fd, buf)
			b.ReportAllocs()
			for b.Loop() {
				pingpong(b, fd, buf)
			}
		})
	}
}
