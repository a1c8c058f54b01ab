package publish

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"guesthouse.example/bench/internal/chart"
)

const report = "# Title\n\nSome CPU, 2 cores, Linux 6.1, go1.26, 2026-11-30 21:48 UTC.\n\n10 interleaved runs; medians.\n"

func TestResultsAreTakenAndReadAgain(t *testing.T) {
	out, folder := t.TempDir(), t.TempDir()
	complete := func([]byte) error { return nil }
	taken, err := take(out, "boot", folder, complete)
	require.NoError(t, err)
	require.False(t, taken, "there is no run yet")
	require.NoError(t, os.WriteFile(filepath.Join(out, "boot.json"), []byte("[]"), 0o666))
	require.NoError(t, os.WriteFile(filepath.Join(out, "boot.md"), []byte(report), 0o666))
	_, err = take(out, "boot", folder, func([]byte) error { return errors.New("half a run") })
	require.ErrorContains(t, err, "half a run")
	require.NoFileExists(t, filepath.Join(folder, "results.json"))
	taken, err = take(out, "boot", folder, complete)
	require.NoError(t, err)
	require.True(t, taken)

	r, err := Read(folder)
	require.NoError(t, err)
	require.Equal(t, Results{JSON: []byte("[]"), Report: report, Run: Run{"Some CPU, 2 cores, Linux 6.1, go1.26", "2026-11-30", 10}}, r)
	_, err = parseRun("# Title\n")
	require.Error(t, err)
}

func TestASectionOfAPageIsReplacedAndNothingElse(t *testing.T) {
	root := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(root, "docs", "img"), 0o777))
	require.NoError(t, os.WriteFile(filepath.Join(root, "page.md"), []byte("before\n<!-- results -->\nold\n<!-- /results -->\nafter\n"), 0o666))
	p := Pages{}
	require.NoError(t, p.Section(root, "page.md", "new\n"))
	p.Chart("docs/img/c", chart.Chart{Title: "C", Columns: 1})
	require.ElementsMatch(t, []string{"page.md", "docs/img/c-light.svg", "docs/img/c-dark.svg"}, p.Stale(root))
	require.NoError(t, p.write(root))
	require.Empty(t, p.Stale(root))
	text, err := os.ReadFile(filepath.Join(root, "page.md"))
	require.NoError(t, err)
	require.Equal(t, "before\n<!-- results -->\nnew\n<!-- /results -->\nafter\n", string(text))

	require.NoError(t, os.WriteFile(filepath.Join(root, "page.md"), []byte("nothing\n"), 0o666))
	require.ErrorContains(t, p.Section(root, "page.md", "new\n"), "page.md lacks the lines between which they belong")
}
