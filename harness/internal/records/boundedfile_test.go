package records

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The sizes of the pieces that are written make no difference: a log has its beginning and its newest
// lines, and says exactly how many bytes between them are left out.
func TestALogKeepsItsBeginningAndItsNewestPart(t *testing.T) {
	const most = 64 << 10
	for _, piece := range []int{1, 100, 5000, most, 3 * most} {
		file := filepath.Join(t.TempDir(), "log")
		f, err := os.Create(file)
		require.NoError(t, err)
		b := &boundedFile{file: f, max: most}
		var all strings.Builder
		for i := 0; all.Len() < 10*most; i++ {
			fmt.Fprintf(&all, "line %d\n", i)
		}
		text := all.String()
		for rest := text; rest != ""; {
			n := min(piece, len(rest))
			written, err := b.Write([]byte(rest[:n]))
			require.NoError(t, err)
			require.Equal(t, n, written)
			rest = rest[n:]
			info, err := f.Stat()
			require.NoError(t, err)
			require.LessOrEqual(t, info.Size(), int64(most))
		}
		require.NoError(t, b.Close())

		got, err := os.ReadFile(file)
		require.NoError(t, err)
		before, after, found := strings.Cut(string(got), "\n[guesthouse: ")
		require.True(t, found)
		require.Equal(t, most/2, len(before))
		require.True(t, strings.HasPrefix(text, before), "the log begins as the text")
		notice, after, found := strings.Cut(after, "]\n")
		require.True(t, found)
		require.True(t, strings.HasSuffix(text, after), "the log ends as the text")
		require.True(t, strings.HasPrefix(after, "line "), "the newest part begins with a line")
		require.GreaterOrEqual(t, len(after), most/8-len("line 12345\n"))
		omitted, _, _ := strings.Cut(notice, " ")
		n, err := strconv.Atoi(omitted)
		require.NoError(t, err)
		require.Equal(t, len(text)-len(before)-len(after), n)
	}
}

func TestAShortLogIsComplete(t *testing.T) {
	file := filepath.Join(t.TempDir(), "log")
	f, err := os.Create(file)
	require.NoError(t, err)
	b := &boundedFile{file: f, max: 1000}
	for range 10 {
		_, err := b.Write([]byte(strings.Repeat("x", 100)))
		require.NoError(t, err)
	}
	require.NoError(t, b.Close())
	got, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, strings.Repeat("x", 1000), string(got))
}
