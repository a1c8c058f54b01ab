package guesthouse

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The README's programs are compiled and tested where they stand; here they are
// the same.
func TestTheREADMEShowsItsProgramsAsTheyAre(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	require.NoError(t, err)
	blocks := regexp.MustCompile("(?s)<!-- (\\S+\\.go) -->\n```go\n(.*?)```").FindAllStringSubmatch(string(readme), -1)
	require.Len(t, blocks, 2)
	for _, b := range blocks {
		source, err := os.ReadFile(b[1])
		require.NoError(t, err)
		require.Equal(t, string(source), b[2], "README.md and %s differ", b[1])
	}
}

// Every path that a document links to exists.
func TestDocumentsLinkToWhatExists(t *testing.T) {
	docs := []string{"README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/design.md", "docs/debugging.md"}
	link := regexp.MustCompile(`\]\(([^)#:]+)\)`)
	for _, doc := range docs {
		text, err := os.ReadFile(doc)
		require.NoError(t, err)
		dir := ""
		if i := strings.LastIndexByte(doc, '/'); i >= 0 {
			dir = doc[:i+1]
		}
		for _, m := range link.FindAllStringSubmatch(string(text), -1) {
			require.FileExists(t, existing(dir+m[1]), "%s links to %s", doc, m[1])
		}
	}
}

// existing names a file in a folder that exists, for folders can be linked to
// as well.
func existing(path string) string {
	if entries, err := os.ReadDir(path); err == nil && len(entries) > 0 {
		for _, e := range entries {
			if !e.IsDir() {
				return path + "/" + e.Name()
			}
		}
	}
	return path
}
