package harnesstest

import (
	"flag"
	"os"
	"regexp"
	"strings"
	"testing"
	"unicode"

	"guesthouse.example/harness/internal/records"
)

// recordDir returns a new directory for a machine's record. It removes the records that
// earlier runs of the same test left when they were killed.
func recordDir(t testing.TB) string {
	t.Helper()
	parent := ""
	if f := flag.Lookup("test.artifacts"); f != nil && f.Value.String() == "true" {
		parent = t.ArtifactDir()
	}
	// After a kill, only the directory's name tells which test the record is of.
	name := strings.Map(func(r rune) rune {
		if unicode.IsLetter(r) || unicode.IsDigit(r) || r == '_' {
			return r
		}
		return '-'
	}, t.Name())
	if parent == "" {
		records.SweepKilled(os.TempDir(), regexp.MustCompile("^"+regexp.QuoteMeta(name)+`-\d+$`))
	}
	dir, err := os.MkdirTemp(parent, name+"-")
	if err != nil {
		t.Fatal(err)
	}
	if parent == "" {
		t.Cleanup(func() {
			if !hasFailed(t) {
				os.RemoveAll(dir)
			}
		})
	}
	return dir
}
