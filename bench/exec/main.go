// Exec measures what it costs to run a program in a machine: an empty test through go test, an edit of a
// guest up to its test's result, copies of files, and many machines from one template. See README.md.
package main

import (
	"context"
	"time"

	"guesthouse.example/bench/internal/suite"
)

const (
	ours = "guesthouse"
	peer = "govmtest"
)

// targets are all targets of guesthouse.
var targets = []string{"x86", "x86_64", "arm", "arm64"}

func main() { benchmark.Main() }

var benchmark = suite.Benchmark{
	Name: "exec", Runs: 5,
	Within: 10 * time.Minute, // the first run of a target builds its images
	Cases: func(ctx context.Context, source, tmp string) ([]suite.Case, error) {
		b, err := newBench(ctx, source, tmp)
		if err != nil {
			return nil, err
		}
		return b.cases(), nil
	},
	Files: func(r suite.Report) map[string]string { return map[string]string{"md": markdown(r)} },
	Shown: (&bench{}).cases(), Section: section,
}
