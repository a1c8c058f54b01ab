package harness

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// The kernel of the host closes the connections of a QEMU that it ends before anybody is told.
func TestAMachineIsEndingFromWhenQEMUIsKilled(t *testing.T) {
	m := stands(t)
	require.False(t, m.ending())
	m.proc.Kill()
	require.True(t, m.ending())
	m.discard()
}
