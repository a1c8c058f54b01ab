// Package cabletest connects a card of a test with a lan, as package harness connects QEMU's.
package cabletest

import (
	"net"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// New returns the ends of a cable: the lan's and the card's. The end of the test closes both.
func New(t *testing.T) (lan, card net.Conn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	open := func(fd int) net.Conn {
		f := os.NewFile(uintptr(fd), "cable")
		defer f.Close()
		c, err := net.FileConn(f)
		require.NoError(t, err)
		t.Cleanup(func() { c.Close() })
		return c
	}
	return open(fds[0]), open(fds[1])
}
