package main

import (
	"encoding/xml"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"guesthouse.example/bench/internal/publish"
	"guesthouse.example/bench/internal/results"
	"guesthouse.example/bench/internal/suite"
)

func TestAllCases(t *testing.T) {
	var names []string
	for _, c := range allCases() {
		names = append(names, c.name+" "+c.harness)
	}
	var want []string
	for _, tg := range targets {
		for _, network := range []string{"udp", "tcp"} {
			want = append(want, "restore-"+network+"/"+tg+" guesthouse", "cold-"+network+"/"+tg+" guesthouse", "cold-"+network+"/"+tg+" vmtest")
		}
		require.Contains(t, vmtestTargets, tg)
	}
	for _, tg := range targets {
		want = append(want, "prefetched-udp/"+tg+" guesthouse")
	}
	want = append(want, "many/1 guesthouse", "many/4 guesthouse", "many/16 guesthouse", "many/32 guesthouse")
	require.ElementsMatch(t, want, names)
}

func TestAFailureIsInEveryFormOfTheReport(t *testing.T) {
	cases := []suite.Case{{Name: "cold-udp/x86_64", Harness: ours}, {Name: "cold-udp/x86_64", Harness: peer}}
	rows := suite.Rows{row("cold-udp/x86_64", ours, 1000), {Case: "cold-udp/x86_64", Harness: peer, Metric: ms, Summary: results.Summary{Failed: "it <broke>"}}}
	all := files(suite.Report{Cases: cases, Rows: rows, Runs: 1, Begin: time.Now()})
	require.Contains(t, all["md"], "it <broke>")
	require.Contains(t, all["svg"], "failed")
	dec := xml.NewDecoder(strings.NewReader(all["svg"]))
	var err error
	for err == nil {
		_, err = dec.Token()
	}
	require.ErrorIs(t, err, io.EOF)
}

// row is the result of one run.
func row(name, harness string, value float64) suite.Row {
	return suite.Row{Case: name, Harness: harness, Metric: ms, Summary: results.Summary{Median: &value, Min: &value, Max: &value, Runs: 1}}
}

// make figures brings them up to date.
func TestThePagesShowTheNewestResults(t *testing.T) {
	stale, err := benchmark.Stale("../..")
	require.NoError(t, err)
	require.Empty(t, stale, "run make figures")
}

func TestTheChartHasEveryTargetAndWay(t *testing.T) {
	rows := suite.Rows{row("restore-udp/x86_64", ours, 90), row("cold-udp/x86_64", peer, 3200)}
	c := firstEcho(rows, publish.Run{Machine: "M", Date: "2026-11-30", Runs: 3})
	require.Len(t, c.Panels, len(targets))
	for i, p := range c.Panels {
		require.Equal(t, targets[i], p.Title)
		require.Len(t, p.Bars, len(ways))
		require.False(t, p.Bars[3].Ours)
	}
	require.Equal(t, 90.0, *c.Panels[1].Bars[1].Median)
	require.EqualError(t, benchmark.Complete(suite.Rows{{Case: "prefetched-udp/x86", Harness: ours, Metric: ms, Summary: results.Summary{Failed: "broken"}}}),
		"prefetched-udp/x86 of guesthouse has no result: broken")
	require.Contains(t, section(rows, publish.Results{}), "| x86_64 | – | 90 | – | – | – | 3200 | 36 |")
}
