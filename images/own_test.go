package images

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAProgramFindsTheSourcesItWasBuiltFrom(t *testing.T) {
	dir, err := OwnDir(t.Context())
	require.NoError(t, err)
	require.FileExists(t, filepath.Join(dir, busyboxMod))
	require.False(t, isOwn(t.TempDir()))
	require.False(t, isOwn(filepath.Dir(dir)))
	require.Empty(t, ownVersion(), "a checkout has no published version")
}
