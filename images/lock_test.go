package images

import (
	"encoding/json"
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"guesthouse.example/internal/target"
)

// go test ./images -run TestLock -update
var update = flag.Bool("update", false, "write lock.json with the newest kernels of apt's sources")

func TestLock(t *testing.T) {
	if *update {
		data, err := updateLock(t.Context(), Options{Cache: t.TempDir()})
		require.NoError(t, err)
		require.NoError(t, os.WriteFile("lock.json", data, 0o666))
		lockJSON = data
	}
	for _, name := range target.Names() {
		set, err := lockedSet(name)
		require.NoError(t, err)
		require.NotEmpty(t, set, "%s has no tested kernel: run this test with -update", name)
		for _, d := range set {
			require.Regexp(t, `^linux-(image|binary|modules|base)-\d`, d.Package)
			require.Regexp(t, `^\d\S+$`, d.Version)
			require.Regexp(t, `^[0-9a-f]{64}$`, d.SHA256)
			require.Positive(t, d.Size)
		}
	}
	unknown, err := lockedSet("vax")
	require.NoError(t, err)
	require.Empty(t, unknown)
}

func TestKernelSet(t *testing.T) {
	one := kernelSet{{Package: "a", SHA256: strings.Repeat("1", 64), Size: 1}}
	two := append(one, deb{Package: "b", SHA256: strings.Repeat("2", 64), Size: 2})
	require.Equal(t, one[0].SHA256, one.key(), "one package names the directory by its hash")
	require.Len(t, two.key(), 64)
	require.NotEqual(t, one.key(), two.key())
	require.EqualValues(t, 3, two.size())

	data, err := json.Marshal(two)
	require.NoError(t, err)
	var back kernelSet
	require.NoError(t, json.Unmarshal(data, &back))
	require.Equal(t, two, back)
}
