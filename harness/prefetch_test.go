package harness

import (
	"testing"

	"github.com/stretchr/testify/require"

	"guesthouse.example/harness/internal/records"
	"guesthouse.example/harness/internal/vm"
)

// idleVM returns a VM whose process does nothing.
func idleVM(t *testing.T) *vm.VM { return scriptVM(t, "exec sleep 1000") }

// scriptVM returns a VM with a shell script in place of QEMU. Descriptor 3 of the script is the
// console.
func scriptVM(t *testing.T, script string) *vm.VM {
	p, err := Spec{Target: "x86_64"}.plan()
	require.NoError(t, err)
	p.qemu.Binary = "sh"
	v, err := vm.Start(p.vm([]string{"-c", script}, records.New(), nil, memory{}, nil))
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

func TestAVMThatIsGoneIsNotAdopted(t *testing.T) {
	p, err := minimal(t).check()
	require.NoError(t, err)
	adopt := func(v *vm.VM) string {
		_, err := p.adopt(t.Context(), v, BootPrefetched, "")
		require.True(t, hasEnded(v))
		require.ErrorAs(t, err, new(unusableError))
		return err.Error()
	}
	killed := idleVM(t)
	require.NoError(t, killed.Gone())
	killed.Process.Kill()
	require.Contains(t, adopt(killed), "the prefetched machine could not be used: ")
	crashed := scriptVM(t, "echo 'Kernel panic - not syncing: gone' >&3; exec sleep 1000")
	<-crashed.Console.Crashed()
	require.Equal(t, "the prefetched machine could not be used: Kernel panic - not syncing: gone", adopt(crashed))
}
