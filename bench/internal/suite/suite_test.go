package suite

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"guesthouse.example/bench/internal/results"
)

func TestTheRunsAreInterleavedAndSummedUp(t *testing.T) {
	var order []string
	values := []float64{97, 80, 86}
	cases := []Case{
		{Name: "restore-udp/x86_64", Harness: "guesthouse", Metrics: []string{"ms"}, Run: func(context.Context) (map[string]float64, error) {
			order = append(order, "ours")
			return map[string]float64{"ms": values[len(order)/2]}, nil
		}},
		{Name: "cold-udp/x86_64", Harness: "vmtest", Metrics: []string{"ms", "cpu"}, Run: func(context.Context) (map[string]float64, error) {
			order = append(order, "peer")
			return nil, errors.New("broken\nfor good")
		}},
	}
	rows, err := Run(t.Context(), cases, 3, time.Minute)
	require.NoError(t, err)
	require.Equal(t, []string{"ours", "peer", "ours", "peer", "ours", "peer"}, order)
	text, err := json.Marshal(rows)
	require.NoError(t, err)
	require.Equal(t, `[{"case":"restore-udp/x86_64","harness":"guesthouse","metric":"ms","median":86,"min":80,"max":97,"runs":3},`+
		`{"case":"cold-udp/x86_64","harness":"vmtest","metric":"ms","median":null,"min":null,"max":null,"runs":0,"failed":"broken\nfor good"},`+
		`{"case":"cold-udp/x86_64","harness":"vmtest","metric":"cpu","median":null,"min":null,"max":null,"runs":0,"failed":"broken\nfor good"}]`, string(text))
	require.Equal(t, []string{"cold-udp/x86_64 of vmtest succeeded in 0 of 3 runs; its first failure: broken for good"}, rows.Failures(3))
	require.Equal(t, "86", rows.Median("restore-udp/x86_64", "guesthouse", "ms"))
	require.Equal(t, "–", rows.Median("cold-udp/x86_64", "vmtest", "ms"))
	require.Equal(t, "86 (80–97)", rows[0].Cell())
	require.Equal(t, "**failed**", rows[1].Cell())
}

func TestAnInterruptedRunHasNoResults(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	_, err := Run(ctx, []Case{{Run: func(context.Context) (map[string]float64, error) { cancel(); return nil, nil }}}, 2, time.Minute)
	require.EqualError(t, err, "interrupted: nothing is written")
}

func TestCasesAreSelectedByTheBeginningOfTheirNames(t *testing.T) {
	all := []Case{{Name: "exec/arm"}, {Name: "exec/x86"}, {Name: "copy/arm"}}
	some, err := Select(all, "exec/a,copy")
	require.NoError(t, err)
	require.Len(t, some, 2)
	_, err = Select(all, "boot")
	require.EqualError(t, err, "-cases boot: no case has such a name")
}

func TestAReportIsWrittenInEveryForm(t *testing.T) {
	dir := t.TempDir()
	b := Benchmark{Name: "boot", Files: func(r Report) map[string]string { return map[string]string{"md": r.Head("Title", "All are ours.")} }}
	r := Report{Rows: Rows{{Case: "cold-udp/x86_64", Harness: "vmtest", Metric: "ms", Summary: results.Summary{Failed: "it <broke>"}}}, Runs: 3,
		Begin: time.Date(2026, 12, 1, 2, 3, 4, 0, time.UTC)}
	require.NoError(t, b.write(r, dir))
	text, err := os.ReadFile(filepath.Join(dir, "boot.json"))
	require.NoError(t, err)
	require.Contains(t, string(text), `"failed": "it \u003cbroke\u003e"`)
	head, err := os.ReadFile(filepath.Join(dir, "boot.md"))
	require.NoError(t, err)
	require.Equal(t, "# Title\n\n"+results.Machine()+", 2026-12-01 02:03 UTC.\n\n"+
		"3 interleaved runs; medians, with the least and the greatest in brackets. All are ours.\n\n", string(head))
}
