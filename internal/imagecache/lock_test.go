package imagecache

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"guesthouse.example/internal/target"
)

// TestLock of package images looks at what the lock file says.
func TestEveryTargetHasATestedKernel(t *testing.T) {
	for _, name := range target.Names() {
		set, err := Tested(name)
		require.NoError(t, err)
		require.NotEmpty(t, set, name)
	}
	unknown, err := Tested("vax")
	require.NoError(t, err)
	require.Empty(t, unknown)
}

func TestKernelSet(t *testing.T) {
	one := KernelSet{{Package: "a", SHA256: strings.Repeat("1", 64), Size: 1}}
	two := append(one, Deb{Package: "b", SHA256: strings.Repeat("2", 64), Size: 2})
	require.Equal(t, one[0].SHA256, one.Key(), "one package names the directory by its hash")
	require.Len(t, two.Key(), 64)
	require.NotEqual(t, one.Key(), two.Key())
	require.EqualValues(t, 3, two.Size())

	data, err := json.Marshal(two)
	require.NoError(t, err)
	var back KernelSet
	require.NoError(t, json.Unmarshal(data, &back))
	require.Equal(t, two, back)
}
