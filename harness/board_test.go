package harness

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// A guest that ends well by isa-debug-exit, or with 1 by semihosting, and a failure of QEMU have the same exit status.
func TestAFailureOfQEMUIsNoStatusOfTheGuest(t *testing.T) {
	for stderr, failed := range map[string]bool{
		"": false,
		"qemu-system-i386: warning: TCG doesn't support requested feature\n":                           false,
		"qemu-system-i386: info: about it\n":                                                           false,
		"Slirp: Failed to send packet, ret: -1\nSlirp: Failed to send packet, ret: -1\n":               false,
		"qemu-system-i386: cannot set up guest memory 'ram': Cannot allocate memory\n":                 true,
		"Slirp: Failed to send packet, ret: -1\nqemu-system-x86_64: failed to write: No space left\n":  true,
		"qemu-system-x86_64: unsupported machine type\nUse -machine help to list supported machines\n": true,
	} {
		require.Equal(t, failed, reportsFailure(stderr), "%q", stderr)
	}
}
