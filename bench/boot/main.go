// Boot measures the time from asking for a machine to the first echo of its guest. It measures
// machines that are prefetched, restored or booted, and machines that vmtest boots. See README.md.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"guesthouse.example/bench/internal/publish"
	"guesthouse.example/bench/internal/suite"
	"guesthouse.example/harness"
	"guesthouse.example/images"
)

const (
	ours     = "guesthouse"
	peer     = "vmtest"
	guest    = "guesthouse.example/guest/cmd/uinit"
	echoPort = 4242

	// within bounds one run, up to its first echo.
	within = 2 * time.Minute
)

// targets are all targets of guesthouse.
var targets = []string{"x86", "x86_64", "arm", "arm64"}

// manyTarget is the target of the cases that restore many machines at once.
const manyTarget = "x86_64"

var counts = []int{1, 4, 16, 32}

func main() {
	runs := flag.Int("runs", 10, "how often to run each case")
	out := flag.String("out", "../../out/bench", "folder for boot.json, boot.md and boot.svg")
	source := flag.String("source", "../..", "folder of guesthouse's module, whose guest is booted")
	cases := flag.String("cases", "", "run only cases whose names begin with one of these prefixes, separated by commas")
	figures := flag.Bool("figures", false, "measure nothing: write the project's pages, from the results in the out folder if there are any, otherwise from the published ones")
	flag.Parse()
	if *figures {
		if err := publish.Publish(*source, *out, "boot", complete, pages); err != nil {
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

func run(ctx context.Context, source, out string, runs int, only string) error {
	begin := time.Now()
	if err := os.MkdirAll(out, 0o777); err != nil {
		return fmt.Errorf("make folder for results: %w", err)
	}
	tmp, err := os.MkdirTemp("", "guesthouse-bench-boot-")
	if err != nil {
		return fmt.Errorf("make folder for templates: %w", err)
	}
	defer os.RemoveAll(tmp)
	b := &bench{tmp: tmp, specs: map[string]harness.Spec{}, templates: map[string]*harness.Template{}, broken: map[string]error{}}
	defined := allCases()
	all := make([]suite.Case, len(defined))
	for i, c := range defined {
		all[i] = suite.Case{Name: c.name, Harness: c.harness, Metrics: c.metrics, Run: func(ctx context.Context) (map[string]float64, error) {
			return b.measure(ctx, c)
		}}
	}
	cases, err := suite.Select(all, only)
	if err != nil {
		return err
	}
	b.prepare(ctx, source, defined, cases)
	rows, err := suite.Run(ctx, cases, runs, within)
	if err != nil {
		return err
	}
	r := &report{cases: cases, rows: rows, runs: runs, begin: begin}
	if err := r.write(out); err != nil {
		return err
	}
	fmt.Printf("%s written in %v\n", filepath.Join(out, "boot.{json,md,svg}"), time.Since(begin).Round(time.Second))
	return nil
}

// A bench holds the data that the runs share.
type bench struct {
	tmp       string // for templates
	specs     map[string]harness.Spec
	templates map[string]*harness.Template
	broken    map[string]error // targets without an image or a template
}

// prepare builds the image of each target that the cases need, and saves a template of it. If a step
// fails, the target's rows fail.
func (b *bench) prepare(ctx context.Context, source string, defined []benchCase, cases []suite.Case) {
	for _, c := range defined {
		if !slices.ContainsFunc(cases, func(s suite.Case) bool { return s.Name == c.name }) {
			continue
		}
		if _, done := b.specs[c.target]; done || b.broken[c.target] != nil {
			continue
		}
		image, err := images.Build(ctx, c.target, guest, images.Options{Dir: source, Log: os.Stderr, Progress: os.Stderr})
		if err != nil {
			b.broken[c.target] = err
			continue
		}
		spec := harness.Spec{Target: c.target, Kernel: image.Kernel, Initramfs: image.Initramfs, Ports: []string{"udp/4242", "tcp/4242"}}
		b.specs[c.target] = spec
		// The first boot also brings the files into the page cache.
		m, err := harness.Boot(ctx, spec)
		if err != nil {
			b.broken["template "+c.target] = err
			continue
		}
		t, err := m.Save(ctx, filepath.Join(b.tmp, c.target))
		m.Close()
		if err != nil {
			b.broken["template "+c.target] = err
			continue
		}
		b.templates[c.target] = t
	}
}

// measure makes one run of a case.
func (b *bench) measure(ctx context.Context, c benchCase) (map[string]float64, error) {
	if err := b.broken[c.target]; err != nil {
		return nil, err
	}
	if err := b.broken["template "+c.target]; err != nil && c.restores {
		return nil, err
	}
	return c.run(b, ctx, c)
}
