package harness

import (
	"testing"

	"github.com/stretchr/testify/require"

	"guesthouse.example/harness/internal/records"
	"guesthouse.example/harness/internal/vm"
)

// stands returns a machine that does nothing, with a process that is no QEMU.
func stands(t *testing.T) *vm.VM { return spawned(t, "exec sleep 1000") }

// spawned returns a machine with a shell's script in place of QEMU. The script's descriptor 3 is the
// console.
func spawned(t *testing.T, script string) *vm.VM {
	p, err := Spec{Target: "x86_64"}.plan()
	require.NoError(t, err)
	p.qemu.Binary = "sh"
	v, err := vm.Start(p.vm([]string{"-c", script}, records.New(), nil, nil, nil))
	require.NoError(t, err)
	return v
}

func hasEnded(v *vm.VM) bool {
	select {
	case <-v.Process.Done:
		return true
	default:
		return false
	}
}

func TestAVMThatIsGoneBecomesNobodysMachine(t *testing.T) {
	p, err := minimal(t).check()
	require.NoError(t, err)
	adopt := func(v *vm.VM) string {
		_, err := p.adopt(t.Context(), v)
		require.True(t, hasEnded(v))
		require.ErrorAs(t, err, new(unusableError))
		return err.Error()
	}
	killed := stands(t)
	require.NoError(t, killed.Gone())
	killed.Process.Kill()
	require.Contains(t, adopt(killed), "the machine that waited was of no use: ")
	crashed := spawned(t, "echo 'Kernel panic - not syncing: gone' >&3; exec sleep 1000")
	<-crashed.Console.Crashed()
	require.Equal(t, "the machine that waited was of no use: Kernel panic - not syncing: gone", adopt(crashed))
}
