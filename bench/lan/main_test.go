package main

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"guesthouse.example/bench/internal/publish"
	"guesthouse.example/bench/internal/results"
	"guesthouse.example/bench/internal/suite"
)

func row(name, network, metric string, value float64) suite.Row {
	return suite.Row{Case: name, Harness: network, Metric: metric, Summary: results.Summary{Median: &value, Min: &value, Max: &value, Runs: 1}}
}

func TestEveryCaseIsMeasuredOnEveryNetwork(t *testing.T) {
	seen := make(map[string]bool)
	for _, c := range (&bench{}).cases(allNetworks) {
		require.False(t, seen[c.Name+c.Harness])
		seen[c.Name+c.Harness] = true
		require.NotEmpty(t, c.Metrics)
	}
	require.Len(t, seen, len(kinds)*len(allNetworks))
	for _, network := range allNetworks {
		require.NotEmpty(t, labels[network])
	}
}

// The ratios say how lan compares with QEMU's user network: a time by a time, a speed by a speed.
func TestTheSectionHasTheRatiosToTheUserNetwork(t *testing.T) {
	rows := suite.Rows{
		row("trip-udp", ours, us, 110), row("trip-udp", user, us, 100), row("trip-udp", filtered, us, 200),
		row("bulk-in", ours, ms, 206), row("bulk-in", user, ms, 180), row("bulk-in", ours, megabytes, 90), row("bulk-in", user, megabytes, 100),
	}
	text := section(rows, publish.Results{Report: "# Title\n\nmachine\n\n| case"})
	require.Contains(t, text, "| round trip, UDP, µs | 110 | 100 | 200 | – | 1.10 |")
	require.Contains(t, text, "| 64 MiB to the guest, TCP, ms | 206 | 180 | – | – | 1.14 |")
	require.Contains(t, text, "| TCP to the guest, MB/s | 90 | 100 | – | – | 0.90 |")
	require.Contains(t, text, "Lan misses these goals:\n\n- 64 MiB to the guest, TCP: 1.14 times slirp's time; the goal is at most 1.11 times\n\n")
	require.EqualError(t, benchmark.Complete(rows), "first-echo-udp of lan has no result: ")
}

// A host without passt has a chart without its bars. A network that failed keeps its bar.
func TestTheChartHasABarForEachNetworkOfTheHost(t *testing.T) {
	c := barChart(suite.Rows{row("trip-udp", passt, us, 90)}, publish.Run{Machine: "M", Date: "2026-12-01", Runs: 7})
	require.Len(t, c.Panels, len(kinds))
	for i, p := range c.Panels {
		want := len(allNetworks) - 1
		if kinds[i].name == "trip-udp" {
			want++
		}
		require.Len(t, p.Bars, want, p.Title)
		require.True(t, p.Bars[0].Ours)
	}
}

func TestAFailureIsInTheReport(t *testing.T) {
	failed := suite.Row{Case: "bulk-in", Harness: ours, Metric: ms, Summary: results.Summary{Failed: "it broke"}}
	cases := []suite.Case{{Name: "bulk-in", Harness: ours}}
	all := files(suite.Report{Cases: cases, Rows: suite.Rows{failed}, Runs: 1})
	require.Contains(t, all["md"], "it broke")
	require.Contains(t, all["md"], "**failed**")
	require.True(t, strings.HasPrefix(all["svg"], "<svg"))
}

// make figures brings them up to date.
func TestThePagesShowTheNewestResults(t *testing.T) {
	stale, err := benchmark.Stale("../..")
	require.NoError(t, err)
	require.Empty(t, stale, "run make figures")
}
