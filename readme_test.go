package guesthouse

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
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
	docs, err := filepath.Glob("*.md")
	require.NoError(t, err)
	below, err := filepath.Glob("*/*.md")
	require.NoError(t, err)
	deeper, err := filepath.Glob("*/*/*.md")
	require.NoError(t, err)
	docs = slices.Concat(docs, below, deeper)
	require.Subset(t, docs, []string{"README.md", "CONTRIBUTING.md", "docs/design.md", "docs/debugging.md", "docs/templates.md", "bench/boot/README.md"})
	link := regexp.MustCompile(`\]\(([^)#:]+)(?:#[^)]*)?\)`)
	links := 0
	for _, doc := range docs {
		text, err := os.ReadFile(doc)
		require.NoError(t, err)
		dir := ""
		if i := strings.LastIndexByte(doc, '/'); i >= 0 {
			dir = doc[:i+1]
		}
		for _, m := range link.FindAllStringSubmatch(string(text), -1) {
			links++
			require.FileExists(t, existing(dir+m[1]), "%s links to %s", doc, m[1])
		}
	}
	require.Greater(t, links, 20)
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
