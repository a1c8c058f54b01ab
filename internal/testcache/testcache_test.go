package testcache

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The go command compares the beginning of a path, and then opens the file with package os.
func TestANameThroughTheRootLeadsToTheFile(t *testing.T) {
	dir := t.TempDir()
	module := filepath.Join(dir, "deep", "er", "module")
	require.NoError(t, os.MkdirAll(filepath.Join(module, "package"), 0o777))
	link := filepath.Join(dir, "link")
	require.NoError(t, os.Symlink(module, link))
	for _, file := range []string{filepath.Join(module, "go.mod"), filepath.Join(module, "package", "inside"), filepath.Join(dir, "outside")} {
		require.NoError(t, os.WriteFile(file, nil, 0o666))
	}
	for _, root := range []string{module, link} {
		for _, file := range []string{filepath.Join(root, "package", "inside"), filepath.Join(dir, "outside"), "/dev/null"} {
			name := ThroughRoot(filepath.Join(root, "package"), file)
			require.True(t, strings.HasPrefix(name, root+"/"), name)
			want, err := os.Stat(file)
			require.NoError(t, err)
			is, err := os.Stat(name)
			require.NoError(t, err)
			require.True(t, os.SameFile(want, is), name)
		}
	}
	require.Equal(t, "/dev/null", ThroughRoot("/", "/dev/null"), "outside a module go caches nothing")
}

func TestAFileThatComesGoesOrIsWrittenHasChanged(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	require.False(t, hasChanged(file, false))
	require.True(t, hasChanged(file, true), "it has gone")
	require.NoError(t, os.WriteFile(file, nil, 0o666))
	require.True(t, hasChanged(file, false), "it has come")
	require.True(t, hasChanged(file, true), "it is younger than this process")
	require.False(t, hasChanged("/dev/null", true), "it was there before")
}
