// Boot measures the time from asking for a machine to the first echo of its guest. It measures
// machines that are prefetched, restored or booted, and machines that vmtest boots. See README.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"guesthouse.example/bench/internal/publish"
	"guesthouse.example/bench/internal/results"
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
	if runs < 1 {
		return fmt.Errorf("-runs %d: the minimum is 1", runs)
	}
	begin := time.Now()
	if err := os.MkdirAll(out, 0o777); err != nil {
		return fmt.Errorf("make folder for results: %w", err)
	}
	tmp, err := os.MkdirTemp("", "guesthouse-bench-boot-")
	if err != nil {
		return fmt.Errorf("make folder for templates: %w", err)
	}
	defer os.RemoveAll(tmp)
	all := allCases()
	var cases []benchCase
	for _, c := range all {
		if only == "" || hasPrefix(c.name, only) {
			cases = append(cases, c)
		}
	}
	if len(cases) == 0 {
		return fmt.Errorf("-cases %s: no case has such a name", only)
	}
	b := &bench{tmp: tmp, specs: map[string]harness.Spec{}, templates: map[string]*harness.Template{}, broken: map[string]error{}, results: newResults()}
	b.prepare(ctx, source, cases)
	// The runs are interleaved, so that a disturbance of the host affects every case.
	for i := range runs {
		for _, c := range cases {
			if ctx.Err() != nil {
				return errors.New("interrupted: nothing is written")
			}
			b.measure(ctx, c)
		}
		fmt.Printf("run %d of %d after %v\n", i+1, runs, time.Since(begin).Round(time.Second))
	}
	if ctx.Err() != nil {
		return errors.New("interrupted: nothing is written")
	}
	r := &report{cases: cases, rows: rows(b.results), runs: runs, begin: begin}
	if err := r.write(out); err != nil {
		return err
	}
	fmt.Printf("%s written in %v\n", filepath.Join(out, "boot.{json,md,svg}"), time.Since(begin).Round(time.Second))
	return nil
}

func hasPrefix(name, prefixes string) bool {
	for prefix := range strings.SplitSeq(prefixes, ",") {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

// A bench holds the data that the runs share.
type bench struct {
	tmp       string // for templates
	specs     map[string]harness.Spec
	templates map[string]*harness.Template
	broken    map[string]error // targets without an image or a template
	results   *results.Results[key]
}

// prepare builds the image of each target that the cases need, and saves a template of it. If a step
// fails, the target's rows fail.
func (b *bench) prepare(ctx context.Context, source string, cases []benchCase) {
	for _, c := range cases {
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
func (b *bench) measure(ctx context.Context, c benchCase) {
	ctx, cancel := context.WithTimeoutCause(ctx, within, fmt.Errorf("no echo within %v", within))
	defer cancel()
	found, err := map[string]float64(nil), b.broken[c.target]
	if err == nil && c.restores {
		err = b.broken["template "+c.target]
	}
	if err == nil {
		found, err = c.run(b, ctx, c)
	}
	for _, metric := range c.metrics {
		k := key{c.name, c.harness, metric}
		if err != nil {
			b.results.Fail(k, err)
		} else {
			b.results.Add(k, found[metric])
		}
	}
}
