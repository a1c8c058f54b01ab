// Exec measures what it costs to run a program in a machine: an empty test through go test, an edit of a
// guest up to its test's result, copies of files, and many machines from one template. See README.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"guesthouse.example/bench/internal/publish"
	"guesthouse.example/bench/internal/suite"
)

const (
	ours = "guesthouse"
	peer = "govmtest"

	// within bounds one run of a case.
	within = 10 * time.Minute
)

// targets are all targets of guesthouse.
var targets = []string{"x86", "x86_64", "arm", "arm64"}

func main() {
	runs := flag.Int("runs", 5, "how often to run each case")
	out := flag.String("out", "../../out/bench", "folder for exec.json and exec.md")
	source := flag.String("source", "../..", "folder of guesthouse's module")
	cases := flag.String("cases", "", "run only cases whose names begin with one of these prefixes, separated by commas")
	figures := flag.Bool("figures", false, "measure nothing: write the project's pages, from the results in the out folder if there are any, otherwise from the published ones")
	flag.Parse()
	if *figures {
		if err := publish.Publish(*source, *out, "exec", complete, pages); err != nil {
			fmt.Fprintln(os.Stderr, "error:", err)
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	err := run(ctx, *source, *out, *runs, *cases)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, source, out string, runs int, only string) (err error) {
	begin := time.Now()
	if err := os.MkdirAll(out, 0o777); err != nil {
		return fmt.Errorf("make folder for results: %w", err)
	}
	b, err := newBench(ctx, source)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	cases, err := suite.Select(b.cases(), only)
	if err != nil {
		return err
	}
	rows, err := suite.Run(ctx, cases, runs, within)
	if err != nil {
		return err
	}
	r := &report{cases: cases, rows: rows, runs: runs, begin: begin}
	if err := r.write(out); err != nil {
		return err
	}
	fmt.Printf("%s written in %v\n", filepath.Join(out, "exec.{json,md}"), time.Since(begin).Round(time.Second))
	return nil
}
