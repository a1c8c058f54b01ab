package qemu

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAFaultOfLibslirpIsExplained(t *testing.T) {
	end := errors.New("QEMU ended: signal: aborted")
	for stderr, want := range map[string]string{
		"qemu-system-x86_64: ../src/socket.c:192: soread: Assertion `buf_len != 0' failed.\n":                                                                                                                  "QEMU ended: signal: aborted: a fault of its user network (libslirp: socket.c:192: soread: Assertion `buf_len != 0' failed.): a client reset its connection",
		"Slirp: a warning\n**\nSlirp:ERROR:../src/sbuf.c:150:sbcopy: assertion failed: (len + off <= sb->sb_cc)\nBail out! Slirp:ERROR:../src/sbuf.c:150:sbcopy: assertion failed: (len + off <= sb->sb_cc)\n": "QEMU ended: signal: aborted: a fault of its user network (libslirp: sbuf.c:150:sbcopy: assertion failed: (len + off <= sb->sb_cc)); a machine on a network",
		"ERROR:../slirp/src/socket.c:615:sorecvfrom: code should not be reached\n":                                                                                                                             "code should not be reached); a machine on a network",
	} {
		err := ExplainEnd(end, stderr)
		require.ErrorIs(t, err, end)
		require.ErrorContains(t, err, want)
		require.NotContains(t, err.Error(), "\n")
	}
	for _, stderr := range []string{
		"",
		"qemu-system-arm: ../net/slirp.c:192: net_slirp_init: Assertion `s' failed.\n",
		"qemu-system-arm: ../softmmu/physmem.c:12: soread: Assertion `buf_len != 0' failed.\n",
		"qemu-system-arm: Slirp: Failed to send packet, ret: -1\n",
	} {
		require.Equal(t, end, ExplainEnd(end, stderr), stderr)
	}
}
