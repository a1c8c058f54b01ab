package harness

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// The kernel of the host closes the connections of a QEMU that it ends before anybody is told.
func TestAMachineIsEndingFromWhenQEMUIsKilled(t *testing.T) {
	v := stands(t)
	require.False(t, v.ending())
	v.proc.Kill()
	require.True(t, v.ending())
	v.Discard()
}
