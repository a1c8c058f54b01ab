// Lan measures package lan beside QEMU's user network and passt: round trips, packets, streams, and the time from the
// restore of a machine to its first echo. See README.md.
package main

import (
	"context"
	"path/filepath"
	"time"

	"guesthouse.example/bench/internal/chart"
	"guesthouse.example/bench/internal/echoguest"
	"guesthouse.example/bench/internal/publish"
	"guesthouse.example/bench/internal/suite"
)

// target is the target of all machines.
const target = "x86_64"

func main() { benchmark.Main() }

var benchmark = suite.Benchmark{
	Name: "lan", Runs: 7,
	Within: 3 * time.Minute, // the first run of a network builds its image and boots it
	Cases: func(_ context.Context, source, tmp string) ([]suite.Case, error) {
		guests := echoguest.Guests{Source: filepath.Join(source, "bench"), Dir: tmp, Package: "guesthouse.example/bench/lan/guest"}
		return (&bench{guests: guests}).cases(networks()), nil
	},
	Files:   files,
	Shown:   (&bench{}).cases([]string{ours, user, filtered}), // not every host has passt
	Section: section,
	Charts: func(rows suite.Rows, run publish.Run) map[string]chart.Chart {
		return map[string]chart.Chart{"bench/lan/chart": barChart(rows, run)}
	},
}
