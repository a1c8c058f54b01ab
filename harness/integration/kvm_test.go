package integration

import (
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"guesthouse.example/harness/internal/kvm"
	"guesthouse.example/harness/internal/qemu"
	tables "guesthouse.example/internal/target"
)

// The probe's check of KVM saves and restores a machine. Here it does so under TCG, because the hosts of
// these tests need not have a KVM that boots a kernel.
func TestTheProbeSavesAndRestoresAMachine(t *testing.T) {
	t.Parallel()
	target := oneTarget(t)
	row, err := tables.Lookup(target)
	require.NoError(t, err)
	m := qemu.Machine{Target: row, Kernel: echoSpec(t, target).Kernel}
	m.Binary, err = exec.LookPath(row.QEMU)
	require.NoError(t, err)
	require.NoError(t, kvm.NewProber().Restore(t.Context(), m, 2*time.Minute))
}
