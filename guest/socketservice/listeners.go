package socketservice

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// ListenUDP returns a non-blocking socket that receives UDP datagrams on a port
// of all addresses, IPv6 and IPv4. As in Zephyr's samples it is one IPv6 socket
// with IPV6_V6ONLY off, on which IPv4 senders appear as ::ffff:a.b.c.d. Port 0
// lets the kernel choose; see [Port]. The caller closes the socket.
func ListenUDP(port int) (fd int, err error) {
	return listen("udp", unix.SOCK_DGRAM, port)
}

// ListenTCP returns a non-blocking socket that accepts TCP connections on a port
// of all addresses, IPv6 and IPv4; see [ListenUDP]. A server that has just ended
// does not keep the port occupied (SO_REUSEADDR). Accepted sockets are blocking
// unless accept4 gets SOCK_NONBLOCK.
func ListenTCP(port int) (fd int, err error) {
	return listen("tcp", unix.SOCK_STREAM, port)
}

// backlog is how many connections may wait to be accepted. The kernel reduces it to
// net.core.somaxconn, which is 4096 by default, and 128 before Linux 5.4.
const backlog = 4096

func listen(network string, kind, port int) (fd int, err error) {
	fd = -1
	step := func(call string, f func() error) {
		if err == nil {
			err = os.NewSyscallError(call, f())
		}
	}
	if port < 0 || port > 65535 {
		return -1, fmt.Errorf("listen %s port %d: not a port number: %w", network, port, unix.EINVAL)
	}
	step("socket", func() (err error) {
		fd, err = unix.Socket(unix.AF_INET6, kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		return err
	})
	step("setsockopt", func() error {
		return unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 0)
	})
	if kind == unix.SOCK_STREAM {
		// On a UDP socket it would let a second server take the port.
		step("setsockopt", func() error {
			return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
		})
	}
	step("bind", func() error { return unix.Bind(fd, &unix.SockaddrInet6{Port: port}) })
	if kind == unix.SOCK_STREAM {
		step("listen", func() error { return unix.Listen(fd, backlog) })
	}
	if err != nil {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
		return -1, fmt.Errorf("listen %s port %d: %w", network, port, err)
	}
	return fd, nil
}

// Port returns the local port of an IPv4 or IPv6 socket, for example one that listens
// on port 0.
func Port(fd int) (int, error) {
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return 0, fmt.Errorf("port of socket %d: %w", fd, os.NewSyscallError("getsockname", err))
	}
	switch sa := sa.(type) {
	case *unix.SockaddrInet6:
		return sa.Port, nil
	case *unix.SockaddrInet4:
		return sa.Port, nil
	}
	return 0, fmt.Errorf("port of socket %d: %w", fd, unix.EAFNOSUPPORT)
}
