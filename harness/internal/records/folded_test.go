package records

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const slirp = "Slirp: Failed to send packet, ret: -1\n"

// What QEMU prints for each packet takes one line of the record, however it arrives.
func TestRepeatedLinesAreFolded(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"a flood":             {strings.Repeat(slirp, 1000), slirp + "[guesthouse: the line above came 999 more times]\n"},
		"between other lines": {"a\n" + slirp + slirp + "b\nb\n", "a\n" + slirp + "[guesthouse: the line above came once more]\nb\n[guesthouse: the line above came once more]\n"},
		"different lines":     {"a\nb\na\nb", "a\nb\na\nb"},
		"a beginning of the last line": {"abc\nabc\nab\nabd\nabc",
			"abc\n[guesthouse: the line above came once more]\nab\nabd\nabc"},
		"an unfinished repeat": {"abc\nab", "abc\nab"},
		"long lines":           {strings.Repeat(strings.Repeat("x", maxFolded)+"\n", 2), strings.Repeat(strings.Repeat("x", maxFolded)+"\n", 2)},
		"long lines that begin alike": {strings.Repeat("x", maxFolded-1) + "\n" + strings.Repeat("x", 2*maxFolded) + "\n",
			strings.Repeat("x", maxFolded-1) + "\n" + strings.Repeat("x", 2*maxFolded) + "\n"},
		"empty lines": {"\n\n\n", "\n[guesthouse: the line above came 2 more times]\n"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, piece := range []int{1, 7, len(c.text)} {
				var file bytes.Buffer
				f := &foldedLines{file: &file}
				for rest := c.text; rest != ""; {
					n := min(piece, len(rest))
					written, err := f.Write([]byte(rest[:n]))
					require.NoError(t, err)
					require.Equal(t, n, written)
					rest = rest[n:]
				}
				require.Equal(t, c.want, file.String()+string(f.pending()), "in pieces of %d, before the end", piece)
				f.flush()
				require.Equal(t, c.want, file.String(), "in pieces of %d", piece)
			}
		})
	}
}

func TestTheStandardErrorOfQEMUIsBounded(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "record")
	r, err := Create(dir, struct{}{}, nil)
	require.NoError(t, err)
	for i := 0; i < 4*stderrLimit; i += 40 {
		_, err := fmt.Fprintf(r.Stderr, "a line of forty bytes, with number %d\n", i)
		require.NoError(t, err)
	}
	for range 3 {
		_, err := r.Stderr.Write([]byte(slirp))
		require.NoError(t, err)
	}
	require.True(t, strings.HasSuffix(r.StderrText(), slirp+"[guesthouse: the line above came 2 more times]"), "%.200q", r.StderrText())
	r.Close(true)
	text, err := os.ReadFile(filepath.Join(dir, "qemu.stderr"))
	require.NoError(t, err)
	require.LessOrEqual(t, len(text), stderrLimit+100)
	require.True(t, strings.HasPrefix(string(text), "a line of forty bytes, with number 0\n"))
	require.True(t, strings.HasSuffix(string(text), "[guesthouse: the line above came 2 more times]\n"), "Close writes the count")
}
