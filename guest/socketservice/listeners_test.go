package socketservice

import (
	"net"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestListenersAcceptBothFamiliesAndNeverBlock(t *testing.T) {
	for network, listen := range map[string]func(int) (int, error){"udp": ListenUDP, "tcp": ListenTCP} {
		fd, err := listen(0)
		require.NoError(t, err)
		defer unix.Close(fd)
		port, err := Port(fd)
		require.NoError(t, err)
		require.NotZero(t, port)
		for _, host := range []string{"127.0.0.1", "::1"} {
			conn, err := net.Dial(network, net.JoinHostPort(host, strconv.Itoa(port)))
			require.NoError(t, err)
			require.NoError(t, conn.Close())
		}
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
		require.NoError(t, err)
		require.NotZero(t, flags&unix.O_NONBLOCK)
		flags, err = unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		require.NoError(t, err)
		require.NotZero(t, flags&unix.FD_CLOEXEC)

		_, err = listen(port)
		require.ErrorIs(t, err, unix.EADDRINUSE)
		require.EqualError(t, err, "listen "+network+" port "+strconv.Itoa(port)+": bind: address already in use")
		for _, bad := range []int{-1, 65536} {
			_, err = listen(bad)
			require.ErrorIs(t, err, unix.EINVAL)
		}
	}
}

func TestPortFailsForASocketWithoutAPort(t *testing.T) {
	ours, _ := socketpair(t)
	_, err := Port(int(ours))
	require.ErrorIs(t, err, unix.EAFNOSUPPORT)
	_, err = Port(-1)
	require.ErrorIs(t, err, unix.EBADF)
}
