package harness

import (
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"guesthouse.example/internal/wire"
)

// A guest that lies about a directory costs the host a bounded amount of memory, and its names lead nowhere else.
func TestAGuestMayLieAboutADirectory(t *testing.T) {
	page := make([]wire.FileInfo, 1000)
	for i := range page {
		page[i].Base = fmt.Sprint(i)
	}
	asked := 0
	entries, err := readPages("dir", func(offset int) ([]wire.FileInfo, error) {
		require.Equal(t, asked*len(page), offset)
		require.Less(t, asked, 500)
		asked++
		return page, nil
	})
	require.EqualError(t, err, "readdir dir: it has more than the 262144 names that ReadDir returns")
	require.LessOrEqual(t, len(entries), maxReadDir)

	for _, name := range []string{"", ".", "..", "/", "a/b", "../a", "a\x00b", strings.Repeat("x", maxName+1)} {
		pages := [][]wire.FileInfo{{{Base: "good"}, {Base: name}}, nil}
		entries, err := readPages("dir", func(int) (page []wire.FileInfo, err error) {
			page, pages = pages[0], pages[1:]
			return page, nil
		})
		var pathErr *fs.PathError
		require.ErrorAs(t, err, &pathErr, "%q", name)
		require.ErrorContains(t, err, "readdir dir: the guest's agent sent the name ")
		require.Less(t, len(err.Error()), 500)
		require.Len(t, entries, 1, "%q", name)
	}
}
