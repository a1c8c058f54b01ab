package harness

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// aCache returns a cache with templates, the last used first.
func aCache(t *testing.T, keys ...string) cacheDir {
	dir, err := (&TemplateCache{Dir: t.TempDir()}).open()
	require.NoError(t, err)
	for i, key := range keys {
		require.NoError(t, os.Mkdir(dir.path(key), 0o777))
		require.NoError(t, os.WriteFile(dir.path(key, ramName), make([]byte, 1<<20), 0o666))
		used := time.Now().Add(-time.Duration(i) * time.Hour)
		require.NoError(t, os.Chtimes(dir.path(key), used, used))
	}
	return dir
}

func keys(dir cacheDir) string {
	var all []string
	for _, t := range dir.list() {
		all = append(all, t.Key)
	}
	return strings.Join(all, " ")
}

func TestWhatWasUsedLeastRecentlyGoesFirst(t *testing.T) {
	dir := aCache(t, "aa", "bb", "cc", "dd")
	dir.prune(4, 1<<30)
	require.Equal(t, "aa bb cc dd", keys(dir))
	dir.prune(3, 1<<30)
	require.Equal(t, "aa bb cc", keys(dir))
	dir.prune(3, 5<<19) // room for two and a half
	require.Equal(t, "aa bb", keys(dir))
	require.NoError(t, (&TemplateCache{Dir: string(dir)}).Clear())
	require.Empty(t, keys(dir))
}

func TestWhatAKilledMakerLeftIsSwept(t *testing.T) {
	dir := aCache(t, "aa")
	at, _, err := dir.workshop(t.Context(), "b1")
	require.NoError(t, err)
	require.NoError(t, os.Mkdir(dir.path("tmp", "c1"), 0o777))
	require.NoError(t, os.WriteFile(dir.path("tmp", "c1", ramName), []byte("half"), 0o666))
	require.NoError(t, os.Mkdir(dir.path("tmp", "gone-1"), 0o777))
	dir.prune(4, 1<<30)
	left, err := filepath.Glob(dir.path("tmp", "*"))
	require.NoError(t, err)
	require.Equal(t, []string{at.tmp}, left, "what is being made stays")
	at.close()
	require.NoDirExists(t, at.tmp)
	require.Equal(t, "aa", keys(dir))
}
