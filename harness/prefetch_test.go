package harness

import (
	"testing"

	"github.com/stretchr/testify/require"

	"guesthouse.example/harness/internal/records"
)

// stands returns a machine that does nothing, with a process that is no QEMU.
func stands(t *testing.T) *vm { return spawned(t, "exec sleep 1000") }

// spawned returns a machine with a shell's script in place of QEMU. The script's descriptor 3 is the
// console.
func spawned(t *testing.T, script string) *vm {
	p, err := Spec{Target: "x86_64"}.plan()
	require.NoError(t, err)
	p.qemu.Binary = "sh"
	m, err := p.start([]string{"-c", script}, records.New(), nil, nil, nil)
	require.NoError(t, err)
	return m
}

func hasEnded(m *vm) bool {
	select {
	case <-m.proc.Done:
		return true
	default:
		return false
	}
}

func TestAVMThatIsGoneBecomesNobodysMachine(t *testing.T) {
	p, err := minimal(t).check()
	require.NoError(t, err)
	adopt := func(v *vm) string {
		_, err := p.adopt(t.Context(), v)
		require.True(t, hasEnded(v))
		require.ErrorAs(t, err, new(unusableError))
		return err.Error()
	}
	killed := stands(t)
	require.NoError(t, killed.gone())
	killed.proc.Kill()
	require.Contains(t, adopt(killed), "the machine that waited was of no use: ")
	crashed := spawned(t, "echo 'Kernel panic - not syncing: gone' >&3; exec sleep 1000")
	<-crashed.console.Crashed()
	require.Equal(t, "the machine that waited was of no use: Kernel panic - not syncing: gone", adopt(crashed))
}
