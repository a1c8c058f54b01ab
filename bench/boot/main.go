// Boot measures the time from asking for a machine to the first echo of its guest. It measures
// machines that are prefetched, restored or booted, and machines that vmtest boots. See README.md.
package main

import (
	"context"
	"time"

	"guesthouse.example/bench/internal/chart"
	"guesthouse.example/bench/internal/echoguest"
	"guesthouse.example/bench/internal/publish"
	"guesthouse.example/bench/internal/suite"
)

const (
	ours = "guesthouse"
	peer = "vmtest"
)

// targets are all targets of guesthouse.
var targets = []string{"x86", "x86_64", "arm", "arm64"}

// manyTarget is the target of the cases that restore many machines at once.
const manyTarget = "x86_64"

var counts = []int{1, 4, 16, 32}

func main() { benchmark.Main() }

var benchmark = suite.Benchmark{
	Name: "boot", Runs: 10,
	Within: 10 * time.Minute, // the first run of a target builds its image
	Cases: func(_ context.Context, source, tmp string) ([]suite.Case, error) {
		return (&bench{tmp: tmp, guests: echoguest.Guests{Source: source, Dir: tmp}}).cases(), nil
	},
	Files:   files,
	Shown:   bars(),
	Section: section,
	Charts: func(rows suite.Rows, run publish.Run) map[string]chart.Chart {
		return map[string]chart.Chart{"docs/img/first-echo": firstEcho(rows, run)}
	},
}

// A bench holds the data that the runs share.
type bench struct {
	tmp    string // for templates
	guests echoguest.Guests
}
