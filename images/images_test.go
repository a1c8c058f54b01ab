package images

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"guesthouse.example/internal/imagecache"
)

func testCache(t *testing.T) *imagecache.Cache {
	t.Helper()
	c, err := openCache(Options{Cache: t.TempDir()})
	require.NoError(t, err)
	return c
}

// The errors of the cache become those of this package.
func TestError(t *testing.T) {
	err := fail("build guest", "./cmd/upper", &os.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC}, "other")
	require.EqualError(t, err, "build guest ./cmd/upper: write x: no space left on device\n"+
		"hint: free some space or raise the limit, or name a directory on another disk with -cache DIR or Options.Cache")
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.Same(t, err, fail("outer", "step", err, ""), "it says it already")
	require.EqualError(t, fail("fetch kernel", "arm64", errors.New("cause"), ""), "fetch kernel arm64: cause")

	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o666))
	_, err = FetchKernel(t.Context(), "arm64", Options{Cache: file})
	failed, ok := errors.AsType[*Error](err)
	require.True(t, ok)
	require.Equal(t, "open cache", failed.Step)
	require.Equal(t, file, failed.Object)
	require.Equal(t, "name a directory that can be written with -cache DIR or Options.Cache", failed.Hint)
}

func TestLastWords(t *testing.T) {
	w := new(lastWords)
	for i := range 100000 {
		fmt.Fprintf(w, "line %d\n", i)
	}
	lines := strings.Split(w.String(), "\n")
	require.Len(t, lines, maxLines+1)
	require.Equal(t, "\tline 99999", lines[maxLines])
	require.Less(t, len(w.buf), 2*maxWords+100)
}
